"""crce as a part of other people's programs."""
