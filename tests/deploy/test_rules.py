import re
import shutil
import subprocess
from typing import Any

import pytest
import yaml

from tests.deploy import promql, written

ALERTS = written.alerts()


def promtool(*arguments: str) -> str:
    """Run promtool beside the rules; say aloud where there is none."""
    if shutil.which("promtool") is None:
        pytest.skip("NOT TESTED: there is no promtool here (Debian package prometheus)")
    command = ["promtool", *arguments]
    ran = subprocess.run(command, cwd=written.RULES.parent, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


class TestRules:
    """Prometheus reads the rules, and each alert does what it should on made-up series."""

    def test_readable(self) -> None:
        """Prometheus takes all rules."""
        rules = sum(len(group["rules"]) for group in written.groups())

        assert f"{rules} rules found" in promtool("check", "rules", written.RULES.name)

    @pytest.mark.thorough
    def test_behaviour(self) -> None:
        """Each alert fires, clears and keeps silent as rules_test.yml says."""
        promtool("test", "rules", written.RULES_TEST.name)

    def test_scrapes(self) -> None:
        """Prometheus takes the example of a configuration, and its jobs are those that the rules know."""
        jobs = {job["job_name"] for job in yaml.safe_load(written.SCRAPES.read_text())["scrape_configs"]}
        matched = {
            value
            for _, expr in written.expressions()
            for asked in promql.selectors(expr)
            for label, _, values in asked.matchers
            if label == "job" and not values.startswith("$")
            for value in values.split("|")
        }

        assert matched == jobs
        promtool("check", "config", written.SCRAPES.name)

    def test_both_ways(self) -> None:
        """rules_test.yml has for each alert a moment in which it fires, and one in which it does not."""
        tests = yaml.safe_load(written.RULES_TEST.read_text())["tests"]
        moments = [each for test in tests for each in test["alert_rule_test"]]

        assert {each["alertname"] for each in moments if each["exp_alerts"]} == set(ALERTS)
        assert {each["alertname"] for each in moments if not each["exp_alerts"]} == set(ALERTS)


class TestAlerts:
    """Whoever is called learns what it is, how bad, and where to read on."""

    @pytest.mark.parametrize("alert", ALERTS)
    def test_told(self, alert: str) -> None:
        """An alert has our prefix, a severity, a sentence of what it is, one of where, and the way to its chapter."""
        rule: dict[str, Any] = ALERTS[alert]

        assert alert.startswith("Iyscheck")
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert rule["annotations"]["summary"].endswith(".")
        assert rule["annotations"]["description"].endswith(".")
        assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{alert.lower()}"

    def test_runbook(self) -> None:
        """The runbook has a chapter for each alert and no other, in the order of the rules."""
        chapters = re.findall(r"^### (\w+)$", written.RUNBOOK.read_text(), re.MULTILINE)

        assert chapters == list(ALERTS)

    @pytest.mark.parametrize("alert", ALERTS)
    def test_chapter(self, alert: str) -> None:
        """A chapter says what it means for senders, where to look, what to do, and when to call somebody else."""
        chapter = written.RUNBOOK.read_text().split(f"### {alert}\n")[1].split("\n## ")[0].split("\n### ")[0]

        for word in ("For senders", "Look", "do", "Escalate"):
            assert re.search(rf"\*\*[^*]*{word}[^*]*\*\*", chapter, re.IGNORECASE), word

    def test_panels_exist(self) -> None:
        """A panel that the runbook names is one of a dashboard."""
        titles = {panel["title"] for board in written.dashboards().values() for panel in written.panels(board)}
        rows = {row["title"] for board in written.dashboards().values() for row in board["panels"]}
        named = set(re.findall(r"(?<!\*)\*([A-Z][^*\n]+)\*(?!\*)", written.RUNBOOK.read_text()))

        missing = {name for name in named if not any(title.startswith(name) for title in titles | rows)}
        assert missing == {"Fast", "Slow"}
