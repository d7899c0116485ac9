"""The printable letters that stand for bytes in the vocabularies of byte-level tokenizers.

Radford et al. 2019, "Language Models are Unsupervised Multitask Learners" (GPT-2).
"""


def _byte_letters() -> list[str]:
    """Returns a printable letter for each byte: its Latin-1 letter where that is printable, else one from 256 on."""
    own = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = iter(range(256, 512))
    return [chr(byte if byte in own else next(others)) for byte in range(256)]


BYTE_LETTERS = _byte_letters()
