"""Plaintext address → canonical text → block → token. Nothing else looks into an address.

Address form 2 is a fixed grammar without metadata, so that loader and gateways can never drift apart. ASCII white space
and one byte order mark are trimmed at both ends.

Phone (channels MESAJ and ARAMA): space `-` `.` `(` `)` are dropped wherever they stand; what is left must be

    prefix, then ten digits, the first 2-9     a Turkish number, mobile or landline: `+90` and the ten digits
    prefix, then 444 and four digits           a company's number without area code: `+90` and the seven digits
    + | 00, then 7-15 digits                   a foreign number: `+` and the digits

    prefix: +90 | 0090 | 090 | 90, then perhaps one 0 | 0 | nothing

`900 444 …` and `0900 444 …` are read as neither: each may be ten digits or a company's number. Some spellings of
foreign numbers would become somebody else's, and for a merchant an unknown number is a permission. So these are
unreadable: a country code that ITU has not assigned; any parenthesis; a 0 behind the country code, a trunk prefix
dialled at home only (but for 39, 225, 241, 242, 378); what is dialled there instead, like `+1 1…` and `+7 8…`
(`TRUNKS`); ten digits that begin with 5, a Turkish mobile without its country code; a last group of one digit;
anything behind a group of six or more digits, an extension. Groups are what separators part.

E-mail (channel EPOSTA): A-Z become a-z, nothing else: no Turkish or
Unicode casing, no folding of dots or plus labels. 6-265 characters, one `@`. Before it one or more of
`a-z 0-9 . _ + -`. After it two or more labels of `a-z 0-9 _ -`, none empty, the last one of at least two
characters and beginning with a letter, and at least two characters before the last dot. İYS publishes its
regular expression only as a link that is not at hand, so this is lenient on purpose: accepting what İYS
refuses costs a look-up that finds nothing, refusing what İYS accepts would turn its own rows into
rejects. (İYS API 3.2.0, errors H120 and H160; runs of `-` `_` `.`, also as first character, are allowed
there since October 2020.)

Anything else is unreadable: sixteen zero bytes, as block and as token. Columns are recognised by array
operations or by compiled loops (see `kernel`), single addresses by regular expressions written apart from
them; tests hold the three together.

    single      one address, by regular expressions          causes     why one is unreadable, for people
    columns     blocks and tokens of many: `phones` and `emails` by arrays, `loops` compiled
    countries   their codes, and `TRUNKS`
"""

from iyscheck.address.causes import Unreadable, why_unreadable
from iyscheck.address.columns import blocks, mixed_tokens, readable, tokens
from iyscheck.address.single import UNREADABLE, block, canonical, token
from iyscheck.address.texts import TextColumn

__all__ = [
    "UNREADABLE",
    "TextColumn",
    "Unreadable",
    "block",
    "blocks",
    "canonical",
    "mixed_tokens",
    "readable",
    "token",
    "tokens",
    "why_unreadable",
]
