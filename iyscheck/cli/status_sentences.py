"""What `iyscheck status` says, in two languages: lines of a glance, states, and what to do."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from iyscheck.overview import BrandState, Loaded
from iyscheck.sentences import Language


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusWords:
    """The lines, with places for facts."""

    serving: str
    not_serving: str
    build: str
    worker: str
    position: str
    primary: str
    replica: str
    untrusted: str
    store: str
    unreadable: str
    index: str
    index_damaged: str
    watermarks: str
    no_watermarks: str
    limit: str
    brands: str
    feed: str
    never: str
    nothing_waits: str
    waits: str
    callers: str
    callers_unusable: str
    no_callers: str
    brand: str
    source: str
    reject: str
    more: str
    accept: str


STATUS_WORDS: Final[Mapping[Language, StatusWords]] = {
    Language.ENGLISH: StatusWords(
        serving="SERVING",
        not_serving="NOT SERVING: {names}",
        build="iyscheck {version}, {kernel}, Python {python}, gRPC {grpc}",
        worker="Worker {number} of {workers} answered; it is there since {since}.",
        position="Position {sequence:,} of log {log_id}",
        primary="Primary of this log: batch {batch:,} of term {term:,}",
        replica="Replica of this log: batch {batch:,} of term {term:,}, made {lag:.1f} s ago",
        untrusted="The replica is not to be believed: everything commercial is refused (DATA_STALE) until it boots.",
        store="{records:,} consents in {size}; {free} free; {readers} of {max_readers} reader slots in use",
        unreadable="The store cannot be read ({reason}): everything commercial is refused. The server's log tells why.",
        index="Decision index: {pages:,} pages",
        index_damaged="Decision index: {bad} of {pages:,} pages cannot be used. Run 'iyscheck-loader rebuild-index'.",
        watermarks="Data complete to: newest {newest}, median {median}, oldest {oldest}",
        no_watermarks="No brand has a watermark: commercial messages are refused (DATA_STALE).",
        limit="A brand's data may be {limit} old.",
        brands="{brands:,} brands: {states}",
        feed="Feed {name}: loaded to its end {succeeded}",
        never="never",
        nothing_waits="No rejected rows wait.",
        waits="{rows:,} rejected row(s) of {sources:,} source(s) wait, and {brands:,} watermark(s) for them.",
        callers="{callers:,} callers are in force.",
        callers_unusable="The callers file cannot be used as it is; {callers:,} callers of before stay in force.",
        no_callers="There is no callers file: whoever reaches the server may ask everything.",
        brand="brand {brand}: {state}, complete to {watermark}",
        source="source '{name}': {state}, {rows:,} rows, {rejected:,} rejected",
        reject="  line {line}: {reason} {field}",
        more="… and more: --json shows all.",
        accept="Mend these rows and load them again, or, if they are lost: iyscheck-loader accept-rejects SOURCE",
    ),
    Language.TURKISH: StatusWords(
        serving="HİZMET VERİYOR",
        not_serving="HİZMET VERMİYOR: {names}",
        build="iyscheck {version}, {kernel}, Python {python}, gRPC {grpc}",
        worker="Yanıtlayan işçi: {number}/{workers}; {since} anından beri çalışıyor.",
        position="Konum {sequence:,}, günlük {log_id}",
        primary="Bu günlüğün ana deposu: dönem {term:,}, parti {batch:,}",
        replica="Bu günlüğün kopyası: dönem {term:,}, parti {batch:,}; parti {lag:.1f} sn önce oluştu",
        untrusted="Bu kopyaya güvenilmiyor: yeniden kurulana kadar hiçbir ticari iletiye izin verilmiyor (DATA_STALE).",
        store="{records:,} izin, {size}; boş alan {free}; okuyucu yeri {readers}/{max_readers}",
        unreadable="Depo okunamıyor ({reason}): hiçbir ticari iletiye izin verilmiyor. Nedeni sunucu günlüğünde.",
        index="Karar dizini: {pages:,} sayfa",
        index_damaged="Karar dizini: {pages:,} sayfadan {bad} tanesi kullanılamıyor. 'iyscheck-loader rebuild-index' "
        "çalıştırın.",
        watermarks="Verinin tam olduğu an: en yeni {newest}, ortanca {median}, en eski {oldest}",
        no_watermarks="Hiçbir markanın verisinin tam olduğu an bildirilmemiş: ticari iletilere izin yok (DATA_STALE).",
        limit="Bir markanın verisi en çok {limit} eski olabilir.",
        brands="{brands:,} marka: {states}",
        feed="Akış {name}: sonuna kadar yüklendiği an {succeeded}",
        never="hiç",
        nothing_waits="Bekleyen reddedilmiş satır yok.",
        waits="{sources:,} kaynağın {rows:,} reddedilmiş satırı, onları {brands:,} markanın tamlık bilgisi bekliyor.",
        callers="Geçerli çağıran sayısı: {callers:,}.",
        callers_unusable="Çağıranlar dosyası bu haliyle kullanılamıyor; önceki {callers:,} çağıran geçerli.",
        no_callers="Çağıranlar dosyası yok: sunucuya ulaşan herkes her şeyi sorabilir.",
        brand="marka {brand}: {state}, tam olduğu an {watermark}",
        source="kaynak '{name}': {state}, {rows:,} satır, {rejected:,} reddedildi",
        reject="  satır {line}: {reason} {field}",
        more="… ve dahası: hepsini --json gösterir.",
        accept="Bu satırları düzeltip yeniden yükleyin; kayıpsa: iyscheck-loader accept-rejects KAYNAK",
    ),
}

BRAND_STATES: Final[Mapping[Language, Mapping[BrandState, str]]] = {
    Language.ENGLISH: {
        BrandState.UNSPECIFIED: "in a state that this version does not know",
        BrandState.FRESH: "fresh",
        BrandState.LATE: "soon stale",
        BrandState.STALE: "stale",
        BrandState.NONE: "without watermark",
        BrandState.INACTIVE: "inactive",
        BrandState.UNREGISTERED: "not registered",
    },
    Language.TURKISH: {
        BrandState.UNSPECIFIED: "bu sürümün bilmediği durumda",
        BrandState.FRESH: "güncel",
        BrandState.LATE: "yakında eskiyecek",
        BrandState.STALE: "eskimiş",
        BrandState.NONE: "tamlık bilgisi yok",
        BrandState.INACTIVE: "etkin değil",
        BrandState.UNREGISTERED: "kayıtlı değil",
    },
}

LOADED: Final[Mapping[Language, Mapping[Loaded, str]]] = {
    Language.ENGLISH: {
        Loaded.UNSPECIFIED: "in a state that this version does not know",
        Loaded.FINISHED: "finished",
        Loaded.UNFINISHED: "not finished",
        Loaded.HELD: "rejected rows wait",
    },
    Language.TURKISH: {
        Loaded.UNSPECIFIED: "bu sürümün bilmediği durumda",
        Loaded.FINISHED: "bitti",
        Loaded.UNFINISHED: "bitmedi",
        Loaded.HELD: "reddedilmiş satırları bekliyor",
    },
}
