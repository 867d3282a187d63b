"""Why a command failed, in the language of its answers: what it means comes first; details stay as in logs and JSON."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from iyscheck.errors import (
    InputError,
    IyscheckError,
    KeysError,
    ServiceError,
    ServiceRefusedError,
    ServiceUnavailableError,
    SystemRefusedError,
)
from iyscheck.sentences import Language

_MEANINGS: Final[Mapping[Language, Mapping[type[IyscheckError], str]]] = {
    Language.ENGLISH: {},  # the errors themselves
    Language.TURKISH: {
        ServiceUnavailableError: "Sunucudan yanıt alınamadı: göndermeyin.",
        ServiceRefusedError: "Sunucu soruyu geri çevirdi: göndermeyin.",
        ServiceError: "Sunucu yanıt verirken hata yaptı: göndermeyin.",
        InputError: "Verilen seçenek ya da dosya ile bu yapılamaz.",
        KeysError: "Anahtar kullanılamıyor.",
        SystemRefusedError: "Sistem gerekli bir şeye izin vermedi.",
        IyscheckError: "İşlem tamamlanamadı: göndermeyin.",
    },
}
_DETAILS: Final = "Ayrıntı (İngilizce):"
_WAITING: Final[Mapping[Language, str]] = {
    Language.ENGLISH: "{message} Waiting up to {seconds:g} s for it.",
    Language.TURKISH: "Sunucu henüz yanıt vermiyor; en çok {seconds:g} s beklenecek.",
}


def meaning(error: IyscheckError, language: Language) -> str:
    """Say what an error means for who asked; nothing where the error says it already in that language."""
    meanings = _MEANINGS[language]
    return next((meanings[kind] for kind in type(error).__mro__ if kind in meanings), "")


def waiting(error: IyscheckError, seconds: float, language: Language) -> str:
    """Say that nobody is there yet, and how long that is waited for."""
    return _WAITING[language].format(message=error.message, seconds=seconds)


@contextmanager
def failing_in(language: Language) -> Iterator[None]:
    """Note on each error that comes out of the block what it means, in a language; people are told notes first."""
    try:
        yield
    except IyscheckError as error:
        if said := meaning(error, language):
            error.add_note(f"{said} {_DETAILS}")
        raise
