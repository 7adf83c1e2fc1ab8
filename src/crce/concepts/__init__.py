"""What to erase and what to keep: concept sets, their files, and the bundled atlas."""

from crce.concepts.concept_set import CERTAINTY_WORDS, KINDS, ConceptSet, Related, certainty_word
from crce.concepts.corefconcept import read_corefconcept
from crce.concepts.documents import dump_concepts, parse_concepts
from crce.concepts.faults import Fault
from crce.concepts.library import atlas, find_concepts, read_concepts, read_sets, write_concepts, write_sets


__all__ = ["CERTAINTY_WORDS", "KINDS", "ConceptSet", "Fault", "Related", "atlas", "certainty_word"]
__all__ += ["dump_concepts", "find_concepts", "parse_concepts", "read_concepts", "read_corefconcept", "read_sets"]
__all__ += ["write_concepts", "write_sets"]
