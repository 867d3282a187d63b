"""Every reason as a sentence with what to do about it, and every other word of an answer, in two languages."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from iyscheck.address import Unreadable
from iyscheck.consent import Reason


class Language(StrEnum):
    """The languages that answers are explained in."""

    ENGLISH = "en"
    TURKISH = "tr"


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why the answer is what it is, and what to do now."""

    why: str
    do: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """What stands around an explanation."""

    permitted: str
    denied: str
    evidence: str
    no_evidence: str
    source: str
    consented: str
    registered: str
    transaction: str
    complete_to: str
    never_complete: str
    valid_until: str
    position: str
    decision: str
    policy: str
    message_class: str


WORDS: Final[Mapping[Language, Words]] = {
    Language.ENGLISH: Words(
        permitted="PERMITTED",
        denied="DENIED",
        evidence="Evidence",
        no_evidence="no record was needed or found",
        source="source",
        consented="declared",
        registered="registered at İYS",
        transaction="transaction",
        complete_to="Data complete to",
        never_complete="not stated",
        valid_until="Answer valid until",
        position="position",
        decision="Decision",
        policy="policy",
        message_class="message class",
    ),
    Language.TURKISH: Words(
        permitted="İZİN VAR",
        denied="İZİN YOK",
        evidence="Dayanak",
        no_evidence="kayıt gerekmedi veya bulunamadı",
        source="kaynak",
        consented="beyan",
        registered="İYS kaydı",
        transaction="işlem",
        complete_to="Verinin tam olduğu an",
        never_complete="bildirilmemiş",
        valid_until="Yanıtın geçerlilik sonu",
        position="konum",
        decision="Karar",
        policy="kural",
        message_class="ileti sınıfı",
    ),
}

EXPLANATIONS: Final[Mapping[Language, Mapping[Reason, Explanation]]] = {
    Language.ENGLISH: {
        Reason.UNSPECIFIED: Explanation(
            why="The server gave a reason that this version does not know, and what is not known is a denial.",
            do="Do not send; update iyscheck.",
        ),
        Reason.CONSENTED: Explanation(
            why="The recipient has given this brand consent for this channel (ONAY).",
            do="You may send.",
        ),
        Reason.MERCHANT_NOT_REFUSED: Explanation(
            why="Merchants and craftsmen (TACIR) may be written to until they refuse, and no refusal is recorded.",
            do="You may send.",
        ),
        Reason.EXEMPT_MESSAGE: Explanation(
            why="Messages of this class need no consent; that this is one is the sender's own statement.",
            do="You may send, if nothing in the message is advertising.",
        ),
        Reason.INVALID_ADDRESS: Explanation(
            why="The address cannot be read, or it does not fit the channel.",
            do="Correct it: MESAJ and ARAMA take phone numbers, EPOSTA takes e-mail addresses.",
        ),
        Reason.BRAND_NOT_REGISTERED: Explanation(
            why="No brand with this code has been loaded.",
            do="Check the code (İYS brandCode, not iysCode), or load the brand's row.",
        ),
        Reason.BRAND_INACTIVE: Explanation(
            why="The brand is inactive, or not authorised for this channel.",
            do="Do not send; settle it at İYS, then load the brand's new row.",
        ),
        Reason.DATA_STALE: Explanation(
            why="The brand's consents are too old to answer from, or nobody has said up to when they are complete.",
            do="Do not send; load the newest changes together with their watermark.",
        ),
        Reason.STATUS_UNKNOWN: Explanation(
            why="The record has a status that is neither ONAY nor RET.",
            do="Do not send; look the recipient up at İYS.",
        ),
        Reason.REFUSED: Explanation(
            why="The recipient has refused messages of this brand on this channel (RET).",
            do="Do not send.",
        ),
        Reason.REGISTERED_TOO_LATE: Explanation(
            why="The consent was taken before 1 December 2020 and registered after the legal deadline: it is void.",
            do="Do not send; ask the recipient for a new consent.",
        ),
        Reason.RETAILER_NOT_AUTHORISED: Explanation(
            why="The recipient has consented, but the brand has not given this retailer access to the consent.",
            do="Do not send in this retailer's name; the brand can give it access at İYS.",
        ),
        Reason.MERCHANT_NOT_RECORDED: Explanation(
            why="There is no record of this merchant or craftsman (TACIR), and this server's policy requires one.",
            do="Do not send; register the recipient at İYS first.",
        ),
        Reason.NO_CONSENT: Explanation(
            why="There is no record of a consent of this individual (BIREYSEL) for this brand and channel.",
            do="Do not send; ask for consent and register it at İYS first.",
        ),
        Reason.LOCALLY_SUPPRESSED: Explanation(
            why="The service provider keeps a refusal of its own for this recipient.",
            do="Do not send.",
        ),
    },
    Language.TURKISH: {
        Reason.UNSPECIFIED: Explanation(
            why="Sunucu, bu sürümün bilmediği bir gerekçe verdi; bilinmeyen her gerekçe ret sayılır.",
            do="Göndermeyin; iyscheck'i güncelleyin.",
        ),
        Reason.CONSENTED: Explanation(
            why="Alıcı, bu markaya bu kanal için onay vermiş (ONAY).",
            do="Gönderebilirsiniz.",
        ),
        Reason.MERCHANT_NOT_REFUSED: Explanation(
            why="Tacir ve esnafa (TACIR) ret bildirene kadar ileti gönderilebilir; kayıtlı bir ret yok.",
            do="Gönderebilirsiniz.",
        ),
        Reason.EXEMPT_MESSAGE: Explanation(
            why="Bu sınıftaki iletiler için onay aranmaz; iletinin bu sınıfta olduğu gönderenin beyanıdır.",
            do="İletide hiçbir tanıtım yoksa gönderebilirsiniz.",
        ),
        Reason.INVALID_ADDRESS: Explanation(
            why="Adres okunamıyor veya kanala uymuyor.",
            do="Adresi düzeltin: MESAJ ve ARAMA telefon numarası, EPOSTA e-posta adresi ister.",
        ),
        Reason.BRAND_NOT_REGISTERED: Explanation(
            why="Bu kodla yüklenmiş bir marka yok.",
            do="Kodu denetleyin (iysCode değil, İYS brandCode) veya marka satırını yükleyin.",
        ),
        Reason.BRAND_INACTIVE: Explanation(
            why="Marka etkin değil veya bu kanal için yetkisi yok.",
            do="Göndermeyin; durumu İYS'de düzeltip markanın yeni satırını yükleyin.",
        ),
        Reason.DATA_STALE: Explanation(
            why="Markanın izin verileri yanıt vermek için çok eski veya hangi ana kadar tam olduğu bildirilmemiş.",
            do="Göndermeyin; en yeni değişiklikleri tamlık bilgisiyle birlikte yükleyin.",
        ),
        Reason.STATUS_UNKNOWN: Explanation(
            why="Kayıttaki durum ne ONAY ne de RET.",
            do="Göndermeyin; alıcıyı İYS'de sorgulayın.",
        ),
        Reason.REFUSED: Explanation(
            why="Alıcı, bu markanın bu kanaldaki iletilerini reddetmiş (RET).",
            do="Göndermeyin.",
        ),
        Reason.REGISTERED_TOO_LATE: Explanation(
            why="Onay 1 Aralık 2020'den önce alınmış, yasal süreden sonra İYS'ye kaydedilmiş: geçersizdir.",
            do="Göndermeyin; alıcıdan yeni onay isteyin.",
        ),
        Reason.RETAILER_NOT_AUTHORISED: Explanation(
            why="Alıcının onayı var, ancak marka bu bayiye onaya erişim yetkisi vermemiş.",
            do="Bu bayi adına göndermeyin; marka, bayiye İYS'de erişim verebilir.",
        ),
        Reason.MERCHANT_NOT_RECORDED: Explanation(
            why="Bu tacir veya esnafın (TACIR) kaydı yok ve bu sunucunun kuralı kayıt arıyor.",
            do="Göndermeyin; önce alıcıyı İYS'ye kaydedin.",
        ),
        Reason.NO_CONSENT: Explanation(
            why="Bu bireyin (BIREYSEL) bu marka ve kanal için onay kaydı yok.",
            do="Göndermeyin; önce onay alıp İYS'ye kaydedin.",
        ),
        Reason.LOCALLY_SUPPRESSED: Explanation(
            why="Hizmet sağlayıcının bu alıcı için kendi ret kaydı var.",
            do="Göndermeyin.",
        ),
    },
}


def explain(reason: Reason, language: Language) -> Explanation:
    """Explain a reason."""
    return EXPLANATIONS[language][reason]


_UNREADABLE: Final[Mapping[Language, Mapping[Unreadable, str]]] = {
    Language.ENGLISH: {
        Unreadable.EMPTY: "It is empty.",
        Unreadable.OTHER_FORM: "It is a phone where the channel asks for an e-mail, or the reverse.",
        Unreadable.INVISIBLE: "It holds a character that is not seen, or one of another script: type it anew.",
        Unreadable.SPREADSHEET: "A spreadsheet has shortened it: format the column as text and export it again.",
        Unreadable.SEVERAL: "It holds more than one address: ask about each by itself.",
        Unreadable.LETTERS: "It holds letters: leave out names and extensions.",
        Unreadable.TRUNK_ZERO: "Behind its country code stands the digit that is dialled at home only: "
        "write +49 171…, not +49 (0)171….",
        Unreadable.TWO_MEANINGS: "It may be a number of area code 900 or a company number 444: begin with +90.",
        Unreadable.PARENTHESIS: "It is a foreign number with parentheses: write it without.",
        Unreadable.EXTENSION: "It is a foreign number with something behind it, such as an extension: leave that out.",
        Unreadable.COUNTRY: "Its country code is nobody's: a Turkish number begins with +90 or 0.",
        Unreadable.LENGTH: "It has too few or too many digits.",
        Unreadable.MALFORMED: "It has characters that no such address has.",
    },
    Language.TURKISH: {
        Unreadable.EMPTY: "Adres boş.",
        Unreadable.OTHER_FORM: "Kanal e-posta isterken telefon verilmiş, ya da tersi.",
        Unreadable.INVISIBLE: "Görünmeyen ya da başka bir yazıdan bir karakter var: yeniden yazın.",
        Unreadable.SPREADSHEET: "Sayı, tablo programının kısalttığı biçimde: sütunu metin olarak biçimlendirip yeniden "
        "dışa aktarın.",
        Unreadable.SEVERAL: "Birden fazla adres var: her birini ayrı sorun.",
        Unreadable.LETTERS: "Harf içeriyor: adları ve dahili numaraları çıkarın.",
        Unreadable.TRUNK_ZERO: "Ülke kodundan sonra yalnızca yurt içinde çevrilen rakam var: +49 (0)171… değil, "
        "+49 171… yazın.",
        Unreadable.TWO_MEANINGS: "900 alan kodlu bir numara da 444 ile başlayan şirket numarası da olabilir: +90 ile "
        "başlayın.",
        Unreadable.PARENTHESIS: "Yabancı numarada parantez var: parantezsiz yazın.",
        Unreadable.EXTENSION: "Yabancı numaranın arkasında dahili numara gibi bir ek var: onu çıkarın.",
        Unreadable.COUNTRY: "Böyle bir ülke kodu yok: Türkiye numarası +90 veya 0 ile başlar.",
        Unreadable.LENGTH: "Rakam sayısı az ya da fazla.",
        Unreadable.MALFORMED: "Böyle bir adreste bulunmayan karakterler var.",
    },
}


def explain_unreadable(cause: Unreadable, language: Language) -> str:
    """Say why an address is not read and how to write it, without saying the address."""
    return _UNREADABLE[language][cause]
