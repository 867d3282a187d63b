"""What `iyscheck callers` says, in two languages: why a call is allowed or not, what to do, and the words around it."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from iyscheck.sentences import Explanation, Language


class Verdict(StrEnum):
    """How a dry run ends: two ways to be allowed, and the reasons of the refusals."""

    IN_SCOPE = "IN_SCOPE"
    EXEMPT_MESSAGE = "EXEMPT_MESSAGE"
    CALL_NOT_ALLOWED = "CALL_NOT_ALLOWED"
    BRAND_NOT_IN_SCOPE = "BRAND_NOT_IN_SCOPE"
    CHANNEL_NOT_IN_SCOPE = "CHANNEL_NOT_IN_SCOPE"
    ADDRESSES_NOT_ALLOWED = "ADDRESSES_NOT_ALLOWED"
    CALLER_UNKNOWN = "CALLER_UNKNOWN"

    @property
    def allowed(self) -> bool:
        """Whether the question would be answered."""
        return self in {Verdict.IN_SCOPE, Verdict.EXEMPT_MESSAGE}


@dataclass(frozen=True, slots=True, kw_only=True)
class CallerWords:
    """What stands around an explanation, and in a list of callers."""

    allowed: str
    not_allowed: str
    good_file: str
    new_key: str
    put_line: str
    of_caller: str
    keys: str
    certificates: str
    brands: str
    channels: str
    calls: str
    addresses: str
    rate: str
    streams: str
    all_brands: str
    only_exempt: str
    plaintext: str
    tokens_only: str
    a_second: str
    no_limit: str
    none: str


CALLER_WORDS: Final[Mapping[Language, CallerWords]] = {
    Language.ENGLISH: CallerWords(
        allowed="ALLOWED",
        not_allowed="NOT ALLOWED",
        good_file="The file can be used. Callers: {callers}, keys: {keys}, certificates: {certificates}.",
        new_key="The key of {name}. It is shown this once: keep it where the caller's program reads it.",
        put_line="Add this to `keys` of [caller.{name}] in the callers file:",
        of_caller="This is a key of {name} (id {key_id}).",
        keys="keys",
        certificates="certificates",
        brands="brands",
        channels="channels",
        calls="calls",
        addresses="addresses",
        rate="rate",
        streams="streams",
        all_brands="all",
        only_exempt="none: exempt messages only",
        plaintext="plaintext and tokens",
        tokens_only="tokens only",
        a_second="{rate} recipients a second",
        no_limit="no limit",
        none="none",
    ),
    Language.TURKISH: CallerWords(
        allowed="İZİN VAR",
        not_allowed="İZİN YOK",
        good_file="Dosya kullanılabilir. Çağıran: {callers}, anahtar: {keys}, sertifika: {certificates}.",
        new_key="{name} için anahtar. Yalnızca bir kez gösterilir: çağıranın programının okuduğu yerde saklayın.",
        put_line="Çağıranlar dosyasında [caller.{name}] altındaki `keys` listesine ekleyin:",
        of_caller="Bu, {name} adlı çağıranın anahtarı (kimlik {key_id}).",
        keys="anahtarlar",
        certificates="sertifikalar",
        brands="markalar",
        channels="kanallar",
        calls="çağrılar",
        addresses="adresler",
        rate="hız",
        streams="akışlar",
        all_brands="hepsi",
        only_exempt="yok: yalnızca onay gerektirmeyen iletiler",
        plaintext="açık adres ve belirteç",
        tokens_only="yalnızca belirteç",
        a_second="saniyede {rate} alıcı",
        no_limit="sınırsız",
        none="yok",
    ),
}

VERDICTS: Final[Mapping[Language, Mapping[Verdict, Explanation]]] = {
    Language.ENGLISH: {
        Verdict.IN_SCOPE: Explanation(
            why="Call, brand, channel and address are in this caller's scope.",
            do="The server answers from its store.",
        ),
        Verdict.EXEMPT_MESSAGE: Explanation(
            why="The call is allowed, and messages of this class pass for every known caller.",
            do="The server permits them; that the message is of this class is the sender's own statement.",
        ),
        Verdict.CALL_NOT_ALLOWED: Explanation(
            why="The caller may not make this call.",
            do="If it should, add the call to its `calls`.",
        ),
        Verdict.BRAND_NOT_IN_SCOPE: Explanation(
            why="The caller may not ask about this brand.",
            do="If it should, add the brand code to its `brands`.",
        ),
        Verdict.CHANNEL_NOT_IN_SCOPE: Explanation(
            why="The caller may not ask about this channel.",
            do="If it should, add the channel to its `channels`.",
        ),
        Verdict.ADDRESSES_NOT_ALLOWED: Explanation(
            why="The caller may send tokens only, no plaintext addresses.",
            do="Give its client the address key, or set `addresses = true`.",
        ),
        Verdict.CALLER_UNKNOWN: Explanation(
            why="No caller of this file has that key.",
            do="Check that it is whole and that its line is in the file, or make a new one.",
        ),
    },
    Language.TURKISH: {
        Verdict.IN_SCOPE: Explanation(
            why="Çağrı, marka, kanal ve adres bu çağıranın kapsamında.",
            do="Sunucu, deposundan yanıt verir.",
        ),
        Verdict.EXEMPT_MESSAGE: Explanation(
            why="Çağrıya izin var ve bu sınıftaki iletiler bilinen her çağıran için geçer.",
            do="Sunucu izin verir; iletinin bu sınıfta olduğu gönderenin beyanıdır.",
        ),
        Verdict.CALL_NOT_ALLOWED: Explanation(
            why="Çağıran bu çağrıyı yapamaz.",
            do="Yapabilmeliyse çağrıyı `calls` listesine ekleyin.",
        ),
        Verdict.BRAND_NOT_IN_SCOPE: Explanation(
            why="Çağıran bu markayı soramaz.",
            do="Sorabilmeliyse marka kodunu `brands` listesine ekleyin.",
        ),
        Verdict.CHANNEL_NOT_IN_SCOPE: Explanation(
            why="Çağıran bu kanalı soramaz.",
            do="Sorabilmeliyse kanalı `channels` listesine ekleyin.",
        ),
        Verdict.ADDRESSES_NOT_ALLOWED: Explanation(
            why="Çağıran yalnızca belirteç gönderebilir, açık adres gönderemez.",
            do="İstemcisine adres anahtarını verin veya `addresses = true` yazın.",
        ),
        Verdict.CALLER_UNKNOWN: Explanation(
            why="Bu dosyadaki hiçbir çağıranın böyle bir anahtarı yok.",
            do="Anahtarın eksiksiz ve satırının dosyada olduğunu denetleyin veya yenisini oluşturun.",
        ),
    },
}
