"""Names and ids of containers."""

from __future__ import annotations

import re
import secrets
from collections.abc import Container

from lading.errors import Conflict, Invalid

_NAME = re.compile(r"/?[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_RULE = "[a-zA-Z0-9][a-zA-Z0-9_.-]"

ID_LENGTH = 64
SHORT = 12

_ADJECTIVES_TEXT = """
able agile alert ample amused apt arctic awake balmy bold brave breezy bright brisk calm candid
careful cheerful civil clever cosy crisp curious daring decent deft devoted eager earnest easy
elated eloquent epic exact fair famous festive fine firm fluent fond frank friendly funny gentle
gifted glad golden graceful grand happy hardy hearty honest hopeful humble ideal intent jolly
jovial keen kind lively logical loyal lucid lucky magical mellow merry mild modest musing mystic
neat nice nimble noble open patient pensive placid plucky polite practical proud quick quiet
quirky radiant ready relaxed robust sharp silent silly sincere sleek smart sober solid spry
stoic sturdy sunny sweet tender thrifty tidy trusting upbeat vibrant vigilant warm wise witty
wonderful zealous zen
"""
_ADJECTIVES = _ADJECTIVES_TEXT.split()

_SURNAMES_TEXT = """
abel agnesi albattani archimedes aryabhata babbage banach bardeen bartik bassi bell bernoulli
blackwell bohr booth borg bose boyd brahmagupta brattain brown carson cauchy cayley
chandrasekhar chatelet chaum clarke colden cori cray curie curran darwin davinci diffie dijkstra
dirac dubinsky easley edison einstein elion ellis engelbart euclid euler faraday fermat fermi
feynman franklin galileo galois gates gauss germain goldberg goldwasser goodall hamilton haslett
hawking heisenberg hellman hermann herschel hertz heyrovsky hilbert hodgkin hofstadter hopper
hugle hypatia jackson jang jemison jepsen johnson joliot jones kalam kapitsa keller kepler
khayyam khorana kilby kirch knuth kowalevski lalande lamarr lamport leakey leavitt lederberg
lehmann lewin lichterman liskov lovelace lumiere mahavira mayer mccarthy mcclintock mclean
mcnulty meitner mendel mendeleev merkle mirzakhani montalcini moore morse moser murdock napier
nash neumann newton nightingale nobel noether northcutt noyce panini pare pascal pasteur payne
perlman pike poincare poitras proskuriakova ptolemy raman ramanujan rhodes ride ritchie robinson
roentgen rosalind rubin saha sammet sanderson satoshi shamir shannon shaw shirley shockley
shtern sinoussi snyder solomon spence stallman stonebraker sutherland swanson swartz taussig
tesla tharp thompson torvalds tu turing varahamihira vaughan villani visvesvaraya volhard
wescoff wilbur wiles williams wilson wing wozniak wright wu yalow yonath zhukovsky
"""
_SURNAMES = _SURNAMES_TEXT.split()


def new_id() -> str:
    """A fresh id: 64 hex digits, never all decimal, so that it is no valid hostname number."""
    while True:
        fresh = secrets.token_hex(ID_LENGTH // 2)
        # A short id of digits alone would be taken for a number by programs that read a hostname.
        if not fresh[:SHORT].isdecimal():
            return fresh


def check_name(name: str) -> str:
    """A user's name without its leading slash. Raises Invalid."""
    if not _NAME.fullmatch(name):
        raise Invalid(f"Invalid container name ({name}), only {_RULE} are allowed")
    return name.removeprefix("/")


def generate(taken: Container[str]) -> str:
    """An ``adjective_surname`` that is not taken."""
    for attempt in range(20):
        name = f"{secrets.choice(_ADJECTIVES)}_{secrets.choice(_SURNAMES)}"
        if attempt >= 6:
            name += str(secrets.randbelow(10 ** (attempt - 5)))
        if name not in taken:
            return name
    raise Conflict("generate a container name: every attempt gave one that is in use")
