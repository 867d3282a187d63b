"""What `iyscheck scrub` says around its answers, in two languages."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from iyscheck.cli.scrubbing.lists import RowFault
from iyscheck.sentences import Language


@dataclass(frozen=True, slots=True, kw_only=True)
class ScrubWords:
    """Sentences with places for names and numbers."""

    detected: str
    only_ascii: str
    with_mark: str
    one_column: str
    parted: str
    header: str
    no_header: str
    column: str
    named_column: str
    resumed: str
    asking: str
    rows: str
    blank: str
    hold_until: str
    data_until: str
    data_unknown: str
    no_evidence: str
    written: str
    several_policies: str
    ended: str
    unreadable: str


SCRUB_WORDS: Final[Mapping[Language, ScrubWords]] = {
    Language.ENGLISH: ScrubWords(
        detected="List {list}: {parts}.",
        only_ascii="{encoding} (only ASCII)",
        with_mark="{encoding} with its mark (BOM)",
        one_column="one column",
        parted="{columns} columns parted by {delimiter}",
        header="the first row is taken for the header: {names}",
        no_header="no header",
        column="addresses in column {column}",
        named_column="addresses in column {column} ({name})",
        resumed="Going on behind row {rows:,}.",
        asking="washing",
        rows="{rows:,} rows: {permitted:,} permitted, {denied:,} denied.",
        blank="{blank:,} blank lines were left as they are.",
        hold_until="The answers hold until {time}.",
        data_until="The data was complete to {time}.",
        data_unknown="It is not stated to when the data was complete.",
        no_evidence="There is no column iyscheck_kanıt_tarihi: bulk answers have no evidence. `iyscheck check` does.",
        written="Written: {path}",
        several_policies="The server's policy changed meanwhile: some rows were answered by another one.",
        ended="The first answers have ended meanwhile ({time}): do not send. Wash the list again, with --afresh.",
        unreadable="{rows:,} rows could not be read. They are denied.",
    ),
    Language.TURKISH: ScrubWords(
        detected="Liste {list}: {parts}.",
        only_ascii="{encoding} (yalnızca ASCII)",
        with_mark="{encoding}, işaretiyle (BOM)",
        one_column="tek sütun",
        parted="{delimiter} ile ayrılmış {columns} sütun",
        header="ilk satır başlık sayıldı: {names}",
        no_header="başlık yok",
        column="adresler {column}. sütunda",
        named_column="adresler {column}. sütunda ({name})",
        resumed="{rows:,} satırın ardından sürdürülüyor.",
        asking="yıkanıyor",
        rows="{rows:,} satır: {permitted:,} izinli, {denied:,} izinsiz.",
        blank="{blank:,} boş satır olduğu gibi bırakıldı.",
        hold_until="Yanıtlar şu ana kadar geçerli: {time}.",
        data_until="Verinin tam olduğu an: {time}.",
        data_unknown="Verinin hangi ana kadar tam olduğu bildirilmemiş.",
        no_evidence="iyscheck_kanıt_tarihi sütunu yok: toplu yanıtlarda dayanak olmaz. `iyscheck check` gösterir.",
        written="Yazıldı: {path}",
        several_policies="Bu sırada sunucunun kuralı değişti: bazı satırlar başka bir kuralla yanıtlandı.",
        ended="İlk yanıtların süresi bu arada doldu ({time}): bu listeyle göndermeyin. --afresh ile yeniden yıkayın.",
        unreadable="{rows:,} satır okunamadı. Bunlar izinsiz sayıldı.",
    ),
}

_FAULTS: Final[Mapping[Language, Mapping[RowFault, str]]] = {
    Language.ENGLISH: {
        RowFault.WRONG_CELLS: "The row has more or fewer cells than the list has columns.",
        RowFault.WRONG_QUOTES: "A quote in the row is not closed, or stands where none may.",
        RowFault.UNDECODABLE: "The row has bytes that are no text in the encoding of the list.",
        RowFault.CONTROL_CHARACTER: "The row has a control character, which some programs take for the end of a line.",
        RowFault.EMPTY_CELL: "The cell of the address is empty.",
    },
    Language.TURKISH: {
        RowFault.WRONG_CELLS: "Satırdaki hücre sayısı listenin sütun sayısından az ya da fazla.",
        RowFault.WRONG_QUOTES: "Satırda kapanmayan ya da yanlış yerde duran bir tırnak var.",
        RowFault.UNDECODABLE: "Satırda listenin kodlamasında metin olmayan baytlar var.",
        RowFault.CONTROL_CHARACTER: "Satırda bazı programların satır sonu saydığı bir denetim karakteri var.",
        RowFault.EMPTY_CELL: "Adres hücresi boş.",
    },
}


def explain_fault(fault: RowFault, language: Language) -> str:
    """Say why a row was denied without asking about it."""
    return _FAULTS[language][fault]
