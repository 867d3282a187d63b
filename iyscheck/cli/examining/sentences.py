"""Findings in words: what was found, and what to do about it, in two languages."""

from collections.abc import Mapping
from typing import Final, NamedTuple

from iyscheck.cli.examining.outcomes import Group, Outcome
from iyscheck.sentences import Language


class Sentences(NamedTuple):
    """What was found, and what to do; the latter is empty where all is well. Both have places for facts."""

    found: str
    do: str = ""


GROUPS: Final[Mapping[Language, Mapping[Group, str]]] = {
    Language.ENGLISH: {
        Group.SETTINGS: "Settings",
        Group.KEYS: "Keys",
        Group.STORE: "Store",
        Group.DATA: "Data",
        Group.MACHINE: "Machine",
        Group.DOOR: "Who may come in",
        Group.SERVER: "Server",
    },
    Language.TURKISH: {
        Group.SETTINGS: "Ayarlar",
        Group.KEYS: "Anahtarlar",
        Group.STORE: "Depo",
        Group.DATA: "Veri",
        Group.MACHINE: "Makine",
        Group.DOOR: "Kimler girebilir",
        Group.SERVER: "Sunucu",
    },
}

SUMMARY: Final[Mapping[Language, str]] = {
    Language.ENGLISH: "{ok} good, {warnings} to look at, {faults} to mend.",
    Language.TURKISH: "{ok} iyi, {warnings} bakılacak, {faults} düzeltilecek.",
}

SENTENCES: Final[Mapping[Language, Mapping[Outcome, Sentences]]] = {
    Language.ENGLISH: {
        Outcome.SETTINGS_GOOD: Sentences("The settings can be used."),
        Outcome.SETTINGS_BAD: Sentences("{error}", "Correct it: `iyscheck serve` would not start."),
        Outcome.NOT_EXAMINED: Sentences("One look failed ({error}): {what}.", "Please report it."),
        Outcome.STORE_KEY_GOOD: Sentences("The store key {key_id} can be read: {file}."),
        Outcome.STORE_KEY_BAD: Sentences("{error}", "Give the file of the store key with --store-key."),
        Outcome.ADDRESS_KEY_GOOD: Sentences("The address key {key_id} can be read: {file}."),
        Outcome.ADDRESS_KEY_BAD: Sentences("{error}", "Give the file of the address key with --address-key."),
        Outcome.ADDRESS_KEY_NONE: Sentences("No address key is given: the server answers tokens only."),
        Outcome.KEYS_FIT: Sentences("The store was written with these keys."),
        Outcome.KEYS_OF_ANOTHER: Sentences("{error}", "With other keys nothing in it can be found."),
        Outcome.STORE_OPEN: Sentences("The store can be opened: format {format}, {records:,} records."),
        Outcome.STORE_NOT_OPEN: Sentences("{error}", "Without its store no server starts."),
        Outcome.FORMAT_OLDER: Sentences(
            "The store has format {format}, the newest is {newest}.",
            "The next load brings it up to date.",
        ),
        Outcome.SAMPLE_WHOLE: Sentences("{records:,} records by chance are whole, and the index agrees."),
        Outcome.SAMPLE_DAMAGED: Sentences("{faults}.", "Run `iyscheck-loader verify`, which reads everything."),
        Outcome.INDEX_MISSING: Sentences(
            "There is no decision index: columns are answered slowly.", "Run `iyscheck-loader rebuild-index`."
        ),
        Outcome.PRIMARY_OF_LOG: Sentences("The store is the primary of its log: term {term}, batch {batch:,}."),
        Outcome.PRIMARY_NO_MORE: Sentences(
            "The store is the primary of its log no more (term {term}, batch {batch:,}): the log has what another "
            "primary has made, or batches of this store that are not in it. Nothing is loaded any more.",
            "See the log of `iyscheck-loader publish`. Let this machine follow the other primary, or stop `publish` "
            "and run `iyscheck-loader promote`, or `promote --rebase`.",
        ),
        Outcome.REPLICA_FOLLOWS: Sentences(
            "The store is a replica, {lag} s behind its primary: term {term}, batch {batch:,}."
        ),
        Outcome.REPLICA_LAGS: Sentences(
            "The store is a replica, and its newest batch was made {lag} s ago: term {term}, batch {batch:,}.",
            "See the log of `iyscheck-loader replicate`: does it run, does it reach NATS? Else look at the primary.",
        ),
        Outcome.REPLICA_UNTRUSTED: Sentences(
            "Nothing commercial is answered from this replica: {reason}",
            "`iyscheck-loader replicate` takes a snapshot by itself; see its log.",
        ),
        Outcome.DISK_ENOUGH: Sentences("{free} are free on the store's disk, which takes {size}."),
        Outcome.DISK_SHORT: Sentences(
            "Only {free} are free on the store's disk, which takes {size}.", "Make room for as much again."
        ),
        Outcome.DISK_FULL: Sentences("Only {free} are free on the store's disk.", "Make room: loads will fail."),
        Outcome.READERS_FEW: Sentences("{readers} of {most} reader slots are used."),
        Outcome.READERS_MANY: Sentences(
            "{readers} of {most} reader slots are used.", "Close readers that nobody needs; at the limit none is added."
        ),
        Outcome.FRESH: Sentences("The newest watermark is {time}, within the limit of {limit}."),
        Outcome.STALE: Sentences(
            "The newest watermark is {time}, beyond the limit of {limit}: every commercial message is denied.",
            "Load the newest changes with their watermark. Does the loader run?",
        ),
        Outcome.NO_WATERMARK: Sentences(
            "No brand has a watermark: every commercial message is denied.",
            "Load a watermark, or use `iyscheck-loader load --complete-until`.",
        ),
        Outcome.BRANDS_FRESH: Sentences("All {brands} active brands are fresh."),
        Outcome.BRANDS_STALE: Sentences(
            "{stale} of {brands} active brands are stale or have no watermark.",
            "See which with `iyscheck-loader status`, and load their changes.",
        ),
        Outcome.NO_BRANDS: Sentences("No brand is registered.", "Load the rows of your brands."),
        Outcome.REJECTS_NONE: Sentences("No rejected rows wait."),
        Outcome.REJECTS_WAIT: Sentences(
            "Rejected rows of {sources} source(s) hold the watermarks of {brands} brand(s).",
            "Mend and load them, or accept their loss with `iyscheck-loader accept-rejects`.",
        ),
        Outcome.CLOCK_PLAUSIBLE: Sentences("The clock is not behind the data."),
        Outcome.CLOCK_BEHIND: Sentences(
            "The clock is {seconds:,} s behind the data: it is answered as stale.",
            "Set the clock of this machine, or find who loaded a watermark of the future.",
        ),
        Outcome.KERNEL_COMPILED: Sentences("The inner loops are compiled (numba)."),
        Outcome.KERNEL_NUMPY: Sentences(
            "numba is not installed: columns are answered more slowly.", "Install it: pip install 'iyscheck[fast]'."
        ),
        Outcome.KERNEL_UNUSABLE: Sentences(
            "numba is installed, but cannot be used: numpy answers more slowly.", "Install it anew, or remove it."
        ),
        Outcome.CERTIFICATE_GOOD: Sentences("The certificate fits its key and is good until {ends}, for {names}."),
        Outcome.CERTIFICATE_ENDS: Sentences("The certificate ends soon: {ends}.", "Renew it."),
        Outcome.CERTIFICATE_BAD: Sentences("{error}", "No server starts with it; a running one keeps the old."),
        Outcome.CERTIFICATE_OTHER_NAME: Sentences(
            "The certificate is for {names}, and the server listens on {host}.",
            "Issue it for the names and addresses that clients connect to.",
        ),
        Outcome.PLAIN_TEXT_INSIDE: Sentences("The server speaks plain text, and listens on the loopback only."),
        Outcome.PLAIN_TEXT_OUTSIDE: Sentences(
            "The server speaks plain text to a network ({host}).", "Give it a certificate: --tls-cert and --tls-key."
        ),
        Outcome.CALLERS_GOOD: Sentences("The callers file can be used: {callers} callers."),
        Outcome.CALLERS_BAD: Sentences("{error}", "See `iyscheck callers check`."),
        Outcome.CALLERS_NONE: Sentences("There is no callers file: whoever reaches the server may ask all."),
        Outcome.CALLERS_NONE_OUTSIDE: Sentences(
            "There is no callers file: whoever reaches {host} may ask about everybody.",
            "List who may ask in a callers file: --callers.",
        ),
        Outcome.PORT_FREE: Sentences("The port {port} is free."),
        Outcome.PORT_OURS: Sentences("The port {port} is served by iyscheck."),
        Outcome.PORT_UNSURE: Sentences(
            "{port} is taken, by this server perhaps: it speaks TLS.", "Give --tls-ca, and doctor can tell."
        ),
        Outcome.PORT_TAKEN: Sentences("{error}", "End what listens there, or choose another port."),
        Outcome.SERVER_SERVES: Sentences("The server at {server} serves."),
        Outcome.SERVER_ABSENT: Sentences("{error}", "Start `iyscheck serve`, if there should be one."),
        Outcome.SERVER_UNREACHABLE: Sentences("{error}", "Is it there, and are the flags for reaching it right?"),
        Outcome.SERVER_NOT_SERVING: Sentences(
            "The server at {server} says NOT_SERVING of itself.", "It drains, or cannot read its store: see its log."
        ),
        Outcome.SERVER_FRESH: Sentences("Its data is fresh."),
        Outcome.SERVER_BEHIND: Sentences(
            "It is behind its primary by {lag} s: answers go on, and our clients prefer servers that are fresh.",
            "See the log of `iyscheck-loader replicate` on its machine, then the primary. Caught up, it is soon fresh.",
        ),
        Outcome.SERVER_NOT_FRESH: Sentences(
            "It says that it is not fresh: its data is stale, or it is behind its primary.",
            "Give what it asks for, and doctor can tell.",
        ),
        Outcome.SERVER_STALE: Sentences(
            "Its data is stale: commercial messages are denied.",
            "Load newer data. Exempt messages are answered all the same.",
        ),
        Outcome.SERVER_KEYS_FIT: Sentences("It is version {version} and has these keys ({kernel}, {policy_id})."),
        Outcome.SERVER_OTHER_KEYS: Sentences(
            "The server at {server} has other keys than these settings.", "Is it the server that you mean?"
        ),
        Outcome.SERVER_OTHER_STORE: Sentences(
            "The server at {server} serves another store than these settings name.",
            "Is it the server that you mean? Give it and doctor the same --store.",
        ),
        Outcome.SERVER_SILENT: Sentences("{error}", "Give what the server asks for, such as --api-key-file."),
        Outcome.METRICS_READ: Sentences("The metrics can be read at {port}."),
        Outcome.METRICS_OFF: Sentences("Metrics are switched off."),
        Outcome.METRICS_NOT_READ: Sentences("The metrics cannot be read at {port}: {error}.", "See the server's log."),
    },
    Language.TURKISH: {
        Outcome.SETTINGS_GOOD: Sentences("Ayarlar kullanılabilir."),
        Outcome.SETTINGS_BAD: Sentences("Ayarlar: {error}", "Düzeltin: `iyscheck serve` başlamaz."),
        Outcome.NOT_EXAMINED: Sentences("Bir inceleme başarısız ({error}): {what}.", "Lütfen bildirin."),
        Outcome.STORE_KEY_GOOD: Sentences("Depo anahtarı {key_id} okunabiliyor: {file}."),
        Outcome.STORE_KEY_BAD: Sentences("Depo anahtarı: {error}", "Dosyasını --store-key ile verin."),
        Outcome.ADDRESS_KEY_GOOD: Sentences("Adres anahtarı {key_id} okunabiliyor: {file}."),
        Outcome.ADDRESS_KEY_BAD: Sentences("Adres anahtarı: {error}", "Dosyasını --address-key ile verin."),
        Outcome.ADDRESS_KEY_NONE: Sentences("Adres anahtarı verilmemiş: sunucu yalnızca belirteçleri yanıtlar."),
        Outcome.KEYS_FIT: Sentences("Depo bu anahtarlarla yazılmış."),
        Outcome.KEYS_OF_ANOTHER: Sentences("Anahtarlar: {error}", "Başka anahtarlarla içinde hiçbir şey bulunamaz."),
        Outcome.STORE_OPEN: Sentences("Depo açılabiliyor: biçim {format}, {records:,} kayıt."),
        Outcome.STORE_NOT_OPEN: Sentences("Depo: {error}", "Depo olmadan hiçbir sunucu başlamaz."),
        Outcome.FORMAT_OLDER: Sentences(
            "Deponun biçimi {format}, en yenisi {newest}.", "Yükleyicinin bir sonraki yüklemesi onu yeniler."
        ),
        Outcome.SAMPLE_WHOLE: Sentences("Rastgele {records:,} kayıt sağlam ve dizin onlarla aynı."),
        Outcome.SAMPLE_DAMAGED: Sentences("Örnek: {faults}.", "Her şeyi okuyan `iyscheck-loader verify` çalıştırın."),
        Outcome.INDEX_MISSING: Sentences(
            "Karar dizini yok: sütunlar yavaş yanıtlanır.", "`iyscheck-loader rebuild-index` çalıştırın."
        ),
        Outcome.PRIMARY_OF_LOG: Sentences("Depo, günlüğünün ana deposu: dönem {term}, parti {batch:,}."),
        Outcome.PRIMARY_NO_MORE: Sentences(
            "Depo artık günlüğünün ana deposu değil (dönem {term}, parti {batch:,}): günlükte başka bir ana deponun "
            "yazdıkları ya da bu deponun kendisinde olmayan partileri var. Artık hiçbir şey yüklenmiyor.",
            "`iyscheck-loader publish` günlüğüne bakın. Bu makine öteki ana depoyu izlesin; ya da `publish` durdurulup "
            "`iyscheck-loader promote` veya `promote --rebase` çalıştırılsın.",
        ),
        Outcome.REPLICA_FOLLOWS: Sentences(
            "Depo bir kopya, ana deposunun {lag} sn gerisinde: dönem {term}, parti {batch:,}."
        ),
        Outcome.REPLICA_LAGS: Sentences(
            "Depo bir kopya ve en yeni partisi {lag} sn önce yapılmış: dönem {term}, parti {batch:,}.",
            "`iyscheck-loader replicate` günlüğüne bakın: çalışıyor mu, NATS'e ulaşıyor mu? Sonra ana depoya bakın.",
        ),
        Outcome.REPLICA_UNTRUSTED: Sentences(
            "Bu kopyadan hiçbir ticari soru yanıtlanmaz: {reason}",
            "`iyscheck-loader replicate` kendiliğinden bir anlık görüntü alır; günlüğüne bakın.",
        ),
        Outcome.DISK_ENOUGH: Sentences("Deponun diskinde {free} boş; depo {size} tutuyor."),
        Outcome.DISK_SHORT: Sentences("Deponun diskinde yalnızca {free} boş; depo {size} tutuyor.", "Yer açın."),
        Outcome.DISK_FULL: Sentences("Deponun diskinde yalnızca {free} boş.", "Yer açın: yüklemeler başarısız olur."),
        Outcome.READERS_FEW: Sentences("{most} okuyucu yerinden {readers} tanesi dolu."),
        Outcome.READERS_MANY: Sentences(
            "{most} okuyucu yerinin {readers} tanesi dolu.", "Gerekmeyen okuyucuları kapatın; sınırda yenisi eklenemez."
        ),
        Outcome.FRESH: Sentences("En yeni tamlık anı {time}, sınırın ({limit}) içinde."),
        Outcome.STALE: Sentences(
            "En yeni tamlık anı {time}, sınırın ({limit}) dışında: her ticari ileti reddedilir.",
            "En yeni değişiklikleri tamlık bilgisiyle yükleyin. Yükleyici çalışıyor mu?",
        ),
        Outcome.NO_WATERMARK: Sentences(
            "Hiçbir markanın tamlık bilgisi yok: her ticari ileti reddedilir.",
            "Tamlık bilgisi yükleyin veya `iyscheck-loader load --complete-until` kullanın.",
        ),
        Outcome.BRANDS_FRESH: Sentences("{brands} etkin markanın hepsi güncel."),
        Outcome.BRANDS_STALE: Sentences(
            "{brands} etkin markanın {stale} tanesi eski ya da tamlık bilgisi yok.",
            "Hangileri: `iyscheck-loader status`. Değişikliklerini yükleyin.",
        ),
        Outcome.NO_BRANDS: Sentences("Kayıtlı marka yok.", "Markalarınızın satırlarını yükleyin."),
        Outcome.REJECTS_NONE: Sentences("Bekleyen reddedilmiş satır yok."),
        Outcome.REJECTS_WAIT: Sentences(
            "{sources} kaynağın reddedilmiş satırları {brands} markanın tamlığını bekletiyor.",
            "Düzeltip yükleyin veya kaybını `iyscheck-loader accept-rejects` ile kabul edin.",
        ),
        Outcome.CLOCK_PLAUSIBLE: Sentences("Saat veriden geri değil."),
        Outcome.CLOCK_BEHIND: Sentences(
            "Saat veriden {seconds:,} sn geri: veri eski sayılır.",
            "Makinenin saatini düzeltin veya gelecekteki tamlık anını kimin yüklediğini bulun.",
        ),
        Outcome.KERNEL_COMPILED: Sentences("İç döngüler derlenmiş (numba)."),
        Outcome.KERNEL_NUMPY: Sentences(
            "numba kurulu değil: sütunlar daha yavaş yanıtlanır.", "Kurun: pip install 'iyscheck[fast]'."
        ),
        Outcome.KERNEL_UNUSABLE: Sentences(
            "numba kurulu ama kullanılamıyor: numpy daha yavaş yanıtlar.", "Yeniden kurun veya kaldırın."
        ),
        Outcome.CERTIFICATE_GOOD: Sentences("Sertifika anahtarına uyuyor; {ends} anına kadar, {names} için geçerli."),
        Outcome.CERTIFICATE_ENDS: Sentences("Sertifikanın süresi yakında doluyor: {ends}.", "Yenileyin."),
        Outcome.CERTIFICATE_BAD: Sentences("Sertifika: {error}", "Sunucu onunla başlamaz; çalışan eskisini kullanır."),
        Outcome.CERTIFICATE_OTHER_NAME: Sentences(
            "Sertifika {names} için, sunucu ise {host} adresini dinliyor.",
            "İstemcilerin bağlandığı ad ve adresler için çıkarın.",
        ),
        Outcome.PLAIN_TEXT_INSIDE: Sentences("Sunucu düz metin konuşuyor ve yalnızca bu makineyi dinliyor."),
        Outcome.PLAIN_TEXT_OUTSIDE: Sentences(
            "Sunucu ağa düz metin konuşuyor ({host}).", "Sertifika verin: --tls-cert ve --tls-key."
        ),
        Outcome.CALLERS_GOOD: Sentences("Arayanlar dosyası kullanılabilir: {callers} arayan."),
        Outcome.CALLERS_BAD: Sentences("Arayanlar dosyası: {error}", "`iyscheck callers check` ile bakın."),
        Outcome.CALLERS_NONE: Sentences("Arayanlar dosyası yok: sunucuya ulaşan her şeyi sorabilir."),
        Outcome.CALLERS_NONE_OUTSIDE: Sentences(
            "Arayanlar dosyası yok: {host} adresine ulaşan herkesi sorabilir.",
            "Kimin sorabileceğini bir arayanlar dosyasına yazın: --callers.",
        ),
        Outcome.PORT_FREE: Sentences("{port} boş."),
        Outcome.PORT_OURS: Sentences("{port} adresinde iyscheck çalışıyor."),
        Outcome.PORT_UNSURE: Sentences(
            "{port} dolu, belki de bu sunucu: TLS konuşuyor.", "--tls-ca verin, doctor söyleyebilsin."
        ),
        Outcome.PORT_TAKEN: Sentences("Bağlantı noktası: {error}", "Orada dinleyeni kapatın veya başkasını seçin."),
        Outcome.SERVER_SERVES: Sentences("{server} adresindeki sunucu hizmet veriyor."),
        Outcome.SERVER_ABSENT: Sentences("Sunucu: {error}", "Olması gerekiyorsa `iyscheck serve` başlatın."),
        Outcome.SERVER_UNREACHABLE: Sentences("Sunucu: {error}", "Sunucu orada mı, ulaşma ayarları doğru mu?"),
        Outcome.SERVER_NOT_SERVING: Sentences(
            "{server} adresindeki sunucu kendisi için NOT_SERVING diyor.",
            "Kapanıyor veya deposunu okuyamıyor: günlüğüne bakın.",
        ),
        Outcome.SERVER_FRESH: Sentences("Verisi güncel."),
        Outcome.SERVER_BEHIND: Sentences(
            "Ana deposunun {lag} sn gerisinde: yanıtlar sürüyor, istemcilerimiz güncel sunucuları yeğler.",
            "Makinesindeki `iyscheck-loader replicate` günlüğüne, sonra ana depoya bakın. Yetişince güncel olur.",
        ),
        Outcome.SERVER_NOT_FRESH: Sentences(
            "Güncel olmadığını söylüyor: verisi eski ya da ana deposunun gerisinde.",
            "İstediğini verin, doctor söyleyebilsin.",
        ),
        Outcome.SERVER_STALE: Sentences(
            "Verisi eski: ticari iletiler reddediliyor.", "Yeni veri yükleyin. İstisna iletileri yine de yanıtlanır."
        ),
        Outcome.SERVER_KEYS_FIT: Sentences("Sürümü {version}, anahtarları bunlar ({kernel}, {policy_id})."),
        Outcome.SERVER_OTHER_KEYS: Sentences(
            "{server} adresindeki sunucunun anahtarları bu ayarlardakilerden başka.", "Bakmak istediğiniz sunucu bu mu?"
        ),
        Outcome.SERVER_OTHER_STORE: Sentences(
            "{server} adresindeki sunucu bu ayarların gösterdiği depodan başka bir depoyu kullanıyor.",
            "Bakmak istediğiniz sunucu bu mu? İkisine de aynı --store değerini verin.",
        ),
        Outcome.SERVER_SILENT: Sentences("Sunucu: {error}", "İstediğini verin, örneğin --api-key-file."),
        Outcome.METRICS_READ: Sentences("Ölçümler {port} adresinden okunabiliyor."),
        Outcome.METRICS_OFF: Sentences("Ölçümler kapalı."),
        Outcome.METRICS_NOT_READ: Sentences("Ölçümler {port} adresinden okunamıyor: {error}.", "Günlüğüne bakın."),
    },
}
