"""A citizen refuses, and the server denies: through all processes that are between them."""

from pathlib import Path

import pytest

from iyscheck.consent import Reason
from tests.loader.push.mirrored import mirrored, until_refused
from tests.loader.push.receiving import BRAND

ONE, OTHER, THIRD = "+905320000001", "+905320000002", "+905320000003"


@pytest.mark.slow
@pytest.mark.thorough
def test_through(tmp_path: Path) -> None:
    """Registered by a command, a refusal is denied once it is pushed; so it is with new credentials; and it ends."""
    with mirrored(tmp_path, [ONE, OTHER, THIRD]) as all_of_it:
        receiving, fake = all_of_it.receiving, all_of_it.fake
        assert all_of_it.reason(ONE) is Reason.CONSENTED
        code, said = receiving.said("register", "acme")
        assert (code, said.count("done")) == (0, 3), said
        code, said = receiving.said("list", "acme")
        assert code == 0
        assert "ARAMA, EPOSTA, MESAJ pushed here" in said

        fake.move(BRAND, "IYS", recipient=ONE, channel="MESAJ", recipient_type="BIREYSEL", status="RET")
        assert {sent.status for sent in fake.push_all()} == {200}
        until_refused(all_of_it, ONE)
        assert all_of_it.reason(OTHER) is Reason.CONSENTED

        code, said = receiving.said("rotate", "acme")
        assert code == 0, said
        fake.move(BRAND, "IYS", recipient=OTHER, channel="MESAJ", recipient_type="BIREYSEL", status="RET")
        assert [sent.status for sent in fake.push_all()] == [200]
        until_refused(all_of_it, OTHER)

        code, said = receiving.said("unregister", "acme")
        assert code == 0, said
        assert receiving.said("list", "acme")[0] == 1
        fake.move(BRAND, "IYS", recipient=THIRD, channel="MESAJ", recipient_type="BIREYSEL", status="RET")
        assert fake.push_all() == []
        secrets = (ONE, "secret", *[each.password for each in fake.world.pushes.registered])
        for log in ("receiver.log", "mirror.log", "server.log"):
            assert not any(secret in (receiving.site.folder / log).read_text() for secret in secrets)
