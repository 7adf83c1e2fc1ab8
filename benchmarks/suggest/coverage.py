"""How many everyday names the lexicon knows, and how complete its sets are.

    python benchmarks/suggest/coverage.py

writes coverage.json beside this file: for each list its length `n`, how many names are `unknown` (no set, also where
it is asked what a name means), how many sets have no coref to train (`no_corefs`) and how many have all that was asked
for (`full`). The names that are unknown, without corefs or incomplete are listed too.

Names are given as they are, without a kind; that there is a set does not say that it is about the thing that the list
means ("Wood" is a painter there). The first five lists are everyday names; they were seen while the table of names in
tools/lexicon was written, which holds most of them. The lists called "unseen" were written after that. The table was
extended later by somebody who had read them, though from other lists (casts of films, rosters of games and comics,
teams, histories of art), so they are no test of it any more. Those called "new unseen" are: 20 names each, drawn at
random from 145 to 201 that were written down after the extension and without a look into the table (everyday things;
the celebrities who earn most and have most followers, and American television; movements and artists in the order of a
survey of art; rosters of Smash Bros., Overwatch, League of Legends, Mortal Kombat, Street Fighter, Marvel and DC). The
same person wrote both, so popular names are in both. Nothing was changed for them.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from crce.errors import SuggestError
from crce.files import write_json
from crce.suggest import Memory, suggest


LISTS = {
    "coco": (
        "person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, stop "
        "sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack, "
        "umbrella, handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball "
        "glove, skateboard, surfboard, tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, "
        "apple, sandwich, orange, broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, "
        "dining table, toilet, tv, laptop, mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, "
        "refrigerator, book, clock, vase, scissors, teddy bear, hair drier, toothbrush"
    ),
    "modern nouns": (
        "smartphone, drone, selfie, selfie stick, hoverboard, electric scooter, e-bike, smartwatch, electric car, "
        "solar panel, wind turbine, tablet computer, e-reader, USB stick, webcam, headphones, earbuds, bluetooth "
        "speaker, game controller, VR headset, robot vacuum, 3D printer, air fryer, espresso machine, food truck, "
        "sushi, ramen, taco, burrito, bubble tea, smoothie, cupcake, avocado toast, poke bowl, emoji, QR code, "
        "hoodie, sneakers, leggings, crop top, yoga mat, fidget spinner, tattoo, skyscraper, shopping mall, "
        "barista, influencer, cosplay, face mask, vape"
    ),
    "celebrities": (
        "Leonardo DiCaprio, Scarlett Johansson, Keanu Reeves, Angelina Jolie, Johnny Depp, Jennifer Lawrence, Will "
        "Smith, Beyoncé, Lady Gaga, Ed Sheeran, Billie Eilish, Kanye West, Elon Musk, Oprah Winfrey, Greta "
        "Thunberg, Cristiano Ronaldo, LeBron James, Roger Federer, Emma Watson, Robert De Niro"
    ),
    "styles": (
        "anime, watercolor, oil painting, Art Deco, Art Nouveau, Surrealism, Pop Art, Baroque, cyberpunk, "
        "steampunk, vaporwave, low poly, line art, graffiti, Banksy, Gustave Doré, Paul Cézanne, Henri Matisse, "
        "Greg Rutkowski, Alphonse Mucha"
    ),
    "characters": (
        "Iron Man, Captain America, Hulk, Goku, Naruto, Luigi, Donald Duck, Bugs Bunny, Shrek, Buzz Lightyear, "
        "Gandalf, Yoda, Hermione Granger, James Bond, Indiana Jones, Lara Croft, Minions, Totoro, Garfield, Peppa "
        "Pig"
    ),
    "unseen modern nouns": (
        "computer monitor, ink cartridge, label maker, paper shredder, noise-cancelling headphones, phone booth, "
        "parking ticket, boarding pass, travel pillow, sleeping mask, water gun, nerf gun, pool noodle, beach "
        "towel, sunscreen, lipstick, eyeliner, nose ring, contact lenses, hearing aid, blood pressure monitor, "
        "wheelchair ramp, stair lift, smoke detector, fire pit, patio heater, lawn chair, robot lawnmower, "
        "sprinkler, compost bin, rain barrel, hedge trimmer, chainsaw, bike rack, bike helmet, knee pads, foam "
        "roller, resistance band, jump rope, exercise ball, rowing machine, stationary bike, ski lift, snow "
        "tubing, zip line, corn maze, photo booth, piñata, party hat, cotton candy"
    ),
    "unseen celebrities": (
        "Vanessa Hudgens, Hailee Steinfeld, Jeremy Renner, Don Cheadle, Mindy Kaling, Trevor Noah, Tim Allen, "
        "Rebel Wilson, Katie Holmes, Nick Jonas, Ellie Goulding, Kesha, Becky G, Neil Patrick Harris, Jon Hamm, "
        "Sergio Garcia, Paul Pogba, Bubba Watson, Nancy Reagan, Angela Bassett"
    ),
    "unseen styles": (
        "Rayonism, Luminism, Gongbi, Nihonga, Fluxus, Tachisme, Sots Art, dreamcore, liminal space, clip art, "
        "decoupage, Lucas Cranach, Paolo Veronese, Yves Klein, Marcel Duchamp, Jenny Saville, Victo Ngai, Kim Jung "
        "Gi, Rebecca Guay, Chuck Close"
    ),
    "unseen characters": (
        "Sirius Black, Bob Cratchit, Alex DeLarge, Beatrix Kiddo, Napoleon Dynamite, Shang-Chi, Lois Lane, Alfred "
        "Pennyworth, Doctor Doom, Skeletor, He-Man, Voltron, Gundam, Sly Cooper, Bomberman, Earthworm Jim, Jimmy "
        "Olsen, Tweedledee, Fozzie Bear, Scarlett O'Hara"
    ),
    "new unseen modern nouns": (
        "security camera, sticky note, dumbbell, escalator, standing desk, road sign, cassette tape, fanny pack, "
        "credit card, bouncy castle, solar lamp, vending machine, cubicle, doorbell camera, receipt, washing machine, "
        "electric toothbrush, tape measure, sweatpants, advent calendar"
    ),
    "new unseen celebrities": (
        "Tony Romo, Jungkook, Metallica, Dr. Phil McGraw, Michael Strahan, David Copperfield, Maluma, Camila Cabello, "
        "Jennie, Chiara Ferragni, Blake Shelton, Wolf Blitzer, Rosanna Pansino, Rihanna, Al Michaels, Conor McGregor, "
        "Drake, Robin Roberts, Shawn Mendes, Fleetwood Mac"
    ),
    "new unseen styles": (
        "Newman, Wood, Symbolism, Titian, Smithson, Nam June Paik, Siqueiros, Lichtenstein, Celtic art, De Stijl, "
        "Kahlo, Signac, Magritte, Bauhaus, Delacroix, Freud, Giorgione, Conceptual Art, Street Art, Photorealism"
    ),
    "new unseen characters": (
        "Symmetra, Katarina, Gorilla Grodd, Joker, Sindel, Funky Kong, R.O.B., Ghost Rider, Ryu, Torbjorn, Sakura, "
        "Junkrat, Sonic, Shulk, Lili, Moira, Corrin, King K. Rool, Sinestro, Baraka"
    ),
}


def coverage(names: list[str]) -> dict[str, Any]:
    """What became of each name."""
    sorts: dict[str, list[str]] = {"unknown": [], "no_corefs": [], "full": []}
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            try:
                suggestion = suggest(name, suggester="lexicon", memory=Memory(Path(folder) / "decisions.jsonl"))
            except SuggestError as error:
                sorts["no_corefs" if "no coref" in str(error).lower() else "unknown"].append(name)
                continue
            if not suggestion.concepts.train_corefs:
                sorts["no_corefs"].append(name)
            elif not any("were asked for" in warning for warning in suggestion.record.warnings):
                sorts["full"].append(name)
    incomplete = [name for name in names if not any(name in sort for sort in sorts.values())]
    named = {"names": {"unknown": sorts["unknown"], "no_corefs": sorts["no_corefs"], "incomplete": incomplete}}
    return {"n": len(names), **{sort: len(found) for sort, found in sorts.items()}, **named}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    args = parser.parse_args()
    result = {name: coverage(listed.split(", ")) for name, listed in LISTS.items()}
    write_json(args.out, result)
    for name, found in result.items():
        print(name, {key: value for key, value in found.items() if key != "names"}, found["names"]["unknown"])


if __name__ == "__main__":
    main()
