"""The two dashboards for Grafana; written as ops.json and feeds.json beside this module.

    python -m deploy.grafana.dashboards      # after a change here

What the server shows is selected by `$job` and `$instance`, what the loader shows by `$loader`. What publishes or
follows a log has a job of its own.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from deploy.grafana.panels import Dashboard, Mark, Panel, Query, Row, Variable, good_above, good_below

_SERVER: Final = 'job=~"$job",instance=~"$instance"'
_LOADER: Final = 'job=~"$loader"'
_LOG: Final = 'job="iyscheck-log"'
_CHECK: Final = 'grpc_method="Check"'
_PERMITTED: Final = 'decision="permit"'
_REFUSED: Final = 'outcome!="answered"'
_REJECTED: Final = 'outcome="rejected"'
_FIRING: Final = 'ALERTS{alertname=~"Iyscheck.+",alertstate="firing"}'


def _now() -> Row:
    newest = f'max by (job, instance) (consent_watermark_timestamp_seconds{{{_SERVER},agg="newest"}})'
    limit = f"consent_freshness_limit_seconds{{{_SERVER}}}"
    return Row(
        title="Now",
        width=4,
        height=5,
        panels=(
            Panel(
                title="Serving",
                says="Whether every server says SERVING.",
                kind="stat",
                unit="none",
                queries=(Query(expr=f'min(consent_serving{{{_SERVER},service="iyscheck.v1.ConsentCheckService"}})'),),
                steps=((None, "red"), (1, "green")),
                words=(("0", "NO", "red"), ("1", "yes", "green")),
            ),
            Panel(
                title="Calls with a fault of ours",
                says="Share of all calls in five minutes. 0.05 % a month are promised.",
                kind="stat",
                unit="percentunit",
                queries=(Query(expr='max(iyscheck:call_errors:ratio_rate5m{job=~"$job"} >= 0)'),),
                steps=good_below(0.0005, 0.005),
                none="no calls",
            ),
            Panel(
                title="Probe, p99",
                says="How long a server's own check through its port takes, a new connection included.",
                kind="stat",
                unit="s",
                queries=(Query(expr=_quantile(0.99, "consent_probe_seconds", _SERVER)),),
                steps=good_below(0.005, 0.1),
            ),
            Panel(
                title="Recipients denied as stale",
                says="Share of those whose answer needs data, in five minutes. 0.5 % a month are promised.",
                kind="stat",
                unit="percentunit",
                queries=(Query(expr='max(iyscheck:stale_recipients:ratio_rate5m{job=~"$job"} >= 0)'),),
                steps=good_below(0.005, 0.05),
                none="no recipients",
            ),
            Panel(
                title="Freshness limit used",
                says="Age of the newest watermark ÷ the limit. At 100 % every commercial message is denied.",
                kind="stat",
                unit="percentunit",
                queries=(Query(expr=f"max((time() - {newest}) / on (job, instance) {limit})"),),
                steps=good_below(0.5, 0.8),
                none="no watermark",
            ),
            Panel(
                title="Recipients",
                says="How many are answered in a second.",
                kind="stat",
                unit="cps",
                queries=(Query(expr=f"sum({_rate('consent_check_decisions_total', _SERVER)})"),),
            ),
        ),
    )


def _alerts() -> Row:
    return Row(
        title="Alerts",
        width=24,
        height=4,
        panels=(
            Panel(
                title="Alerts that fire",
                says="docs/runbook.md has a chapter for each.",
                kind="table",
                unit="none",
                queries=(Query(expr=f"max by (severity, alertname, instance, feed) ({_FIRING})"),),
                none="none",
            ),
        ),
    )


def _answers() -> Row:
    decisions = "consent_check_decisions_total"
    permits = f"sum by (channel) ({_rate(decisions, _SERVER, _PERMITTED)})"
    return Row(
        title="Answers",
        panels=(
            Panel(
                title="Recipients by reason",
                says="What was answered. A jump of one reason says where to look: docs/metrics.md has a line for each.",
                unit="cps",
                queries=(Query(expr=f"sum by (reason) ({_rate(decisions, _SERVER)}) > 0", legend="{{reason}}"),),
                stacked=True,
            ),
            Panel(
                title="Permitted, by channel",
                says="Share of recipients that may be written to. It falls when data becomes stale.",
                unit="percentunit",
                queries=(
                    Query(
                        expr=f"{permits} / sum by (channel) ({_rate(decisions, _SERVER)})",
                        legend="{{channel}}",
                    ),
                ),
                most=1,
            ),
            Panel(
                title="Not answered, by reason",
                says="Calls, frames and items that had no answer, and whose fault that was.",
                unit="cps",
                queries=(
                    Query(
                        expr=f"sum by (fault, unit, reason) ({_rate('consent_not_answered_total', _SERVER)}) > 0",
                        legend="{{fault}}: {{reason}} ({{unit}})",
                    ),
                ),
                none="none",
            ),
        ),
    )


def _latency() -> Row:
    check = "grpc_server_handling_seconds"
    return Row(
        title="Latency",
        width=6,
        panels=(
            Panel(
                title="Single checks",
                says="From when a call came in to its reply. If the probe is slower, calls wait before the server.",
                unit="s",
                queries=(
                    Query(expr=_quantile(0.5, check, _SERVER, _CHECK), legend="Check, p50"),
                    Query(expr=_quantile(0.99, check, _SERVER, _CHECK), legend="Check, p99"),
                    Query(expr=_quantile(0.99, "consent_queue_seconds", _SERVER), legend="of it waiting, p99"),
                    Query(expr=_quantile(0.99, "consent_probe_seconds", _SERVER), legend="probe, p99"),
                ),
            ),
            Panel(
                title="Frames",
                says="How long a frame of a stream takes. 99 % within 50 ms are promised.",
                unit="s",
                queries=(
                    Query(expr=_quantile(0.5, "consent_frame_seconds", _SERVER), legend="p50"),
                    Query(expr=_quantile(0.99, "consent_frame_seconds", _SERVER), legend="p99"),
                ),
            ),
            Panel(
                title="Single checks, all of them",
                says="How many took how long. Two bands mean two kinds of calls, or a worker that is slower.",
                kind="heatmap",
                unit="s",
                queries=(
                    Query(
                        expr=f"sum by (le) (increase({check}_bucket{{{_SERVER},{_CHECK}}}[$__rate_interval]))",
                        legend="{{le}}",
                    ),
                ),
            ),
            Panel(
                title="Recipients of a batch or frame",
                says="Small frames make a campaign slow: 10,000 recipients are a good size.",
                unit="none",
                queries=(
                    Query(expr=_quantile(0.5, "consent_check_batch_size", _SERVER), legend="p50"),
                    Query(expr=_quantile(0.99, "consent_check_batch_size", _SERVER), legend="p99"),
                ),
            ),
        ),
    )


def _room() -> Row:
    streams = f"sum by (instance) (consent_streams_open{{{_SERVER}}})"
    readers = f"max by (instance) (consent_store_readers{{{_SERVER}}})"
    return Row(
        title="Room",
        panels=(
            Panel(
                title="Streams and readers, of their limits",
                says="At 100 % more streams, or more programs that read the store, are refused.",
                unit="percentunit",
                queries=(
                    Query(
                        expr=f"{streams} / sum by (instance) (consent_streams_limit{{{_SERVER}}})",
                        legend="streams, {{instance}}",
                    ),
                    Query(
                        expr=f"{readers} / max by (instance) (consent_store_readers_max{{{_SERVER}}})",
                        legend="readers, {{instance}}",
                    ),
                ),
                most=1,
            ),
            Panel(
                title="Ticker late by, p99",
                says="How late a thread wakes. It grows where Python's lock is held, or cores are too few.",
                unit="s",
                queries=(
                    Query(
                        expr=_quantile(0.99, "consent_ticker_delay_seconds", _SERVER, by="instance"),
                        legend="{{instance}}",
                    ),
                ),
            ),
            Panel(
                title="Processor",
                says="Cores in use. A worker cannot use much more than one.",
                unit="none",
                queries=(
                    Query(
                        expr=f"sum by (instance, worker) ({_rate('consent_process_cpu_seconds_total', _SERVER)})",
                        legend="{{instance}} {{worker}}",
                    ),
                ),
            ),
            Panel(
                title="Memory of its own",
                says="Anonymous memory. The store's pages, which all processes share, are not in it.",
                unit="bytes",
                queries=(
                    Query(
                        expr=f"sum by (instance, worker) (consent_process_anonymous_bytes{{{_SERVER}}})",
                        legend="{{instance}} {{worker}}",
                    ),
                ),
            ),
            Panel(
                title="Pages read from the disk",
                says="Major page faults. They come after a start; later they mean too little memory for the store.",
                unit="cps",
                queries=(
                    Query(
                        expr=f"sum by (instance) ({_rate('consent_process_major_page_faults_total', _SERVER)})",
                        legend="{{instance}}",
                    ),
                ),
            ),
            Panel(
                title="Open files",
                says="File descriptors, most of them connections.",
                unit="none",
                queries=(
                    Query(
                        expr=f"sum by (instance, worker) (consent_process_open_fds{{{_SERVER}}})",
                        legend="{{instance}} {{worker}}",
                    ),
                ),
            ),
        ),
    )


def _callers() -> Row:
    recipients = "consent_caller_recipients_total"
    return Row(
        title="Callers",
        panels=(
            Panel(
                title="Recipients by caller",
                says="Who asks. Callers are known where the server has a callers file.",
                unit="cps",
                queries=(Query(expr=f"sum by (caller) ({_rate(recipients, _SERVER)})", legend="{{caller}}"),),
                stacked=True,
                none="no callers file",
            ),
            Panel(
                title="Refused by quota or scope",
                says="Recipients that a caller was not answered: it asks too fast, or for what it may not.",
                unit="cps",
                queries=(
                    Query(
                        expr=f"sum by (caller, outcome) ({_rate(recipients, _SERVER, _REFUSED)})",
                        legend="{{caller}}: {{outcome}}",
                    ),
                ),
                none="no callers file",
            ),
            Panel(
                title="Not let in",
                says="Calls without a key or certificate that is known. Many: a key was taken out too early.",
                unit="cps",
                queries=(
                    Query(
                        expr=f"sum by (kind) ({_rate('consent_auth_failures_total', _SERVER)})",
                        legend="{{kind}}",
                    ),
                ),
                none="no callers file",
            ),
        ),
    )


def _store_and_build() -> Row:
    ends = f"min by (instance) (consent_tls_expiry_timestamp_seconds{{{_SERVER}}})"
    versions = "instance, version, kernel, rule_version, address_form, python_version"
    return Row(
        title="Store and build",
        panels=(
            Panel(
                title="Store and its disk",
                says="Size of the store, and what is free where it lies.",
                unit="bytes",
                queries=(
                    Query(
                        expr=f"max by (instance) (consent_store_size_bytes{{{_SERVER}}})", legend="store, {{instance}}"
                    ),
                    Query(
                        expr=f"min by (instance) (consent_store_disk_free_bytes{{{_SERVER}}})",
                        legend="free, {{instance}}",
                    ),
                ),
            ),
            Panel(
                title="Pages of the index not taken",
                says="Damaged or missing: run rebuild-index. Answers are right meanwhile, but slow.",
                unit="none",
                queries=(
                    Query(
                        expr=f"max by (instance) (consent_index_pages_not_taken{{{_SERVER}}})", legend="{{instance}}"
                    ),
                ),
            ),
            Panel(
                title="Workers by state",
                says="Serving should be all of them. A silent one is overloaded or hangs.",
                unit="none",
                queries=(Query(expr=f"sum by (state) (consent_workers{{{_SERVER}}})", legend="{{state}}"),),
                stacked=True,
                none="one process",
            ),
            Panel(
                title="Started again, and refused to load",
                says="Workers after one died, and new files that could not be used: the log says why.",
                unit="none",
                queries=(
                    Query(
                        expr=f"increase(consent_worker_restarts_total{{{_SERVER}}}[$__rate_interval])",
                        legend="workers, {{instance}}",
                    ),
                    Query(
                        expr=f"sum by (what) (increase(consent_reload_failures_total{{{_SERVER}}}[$__rate_interval]))",
                        legend="{{what}}",
                    ),
                ),
            ),
            Panel(
                title="Certificates end in",
                says="Below seven days somebody should renew them; the files are read again when they change.",
                unit="d",
                queries=(Query(expr=f"({ends} - time()) / 86400", legend="{{instance}}"),),
                steps=good_above(7, 14),
                none="no certificate",
            ),
            Panel(
                title="Versions",
                says="What runs where. Servers that answer one question differently are of two versions.",
                kind="table",
                unit="none",
                queries=(Query(expr=f"max by ({versions}) (consent_build_info{{{_SERVER}}})"),),
            ),
        ),
    )


def _promises() -> Row:
    success = f"max by (feed) (consent_feed_last_success_timestamp_seconds{{{_SERVER}}})"
    interval = f"max by (feed) (consent_feed_expected_interval_seconds{{{_SERVER}}})"
    return Row(
        title="Promises",
        panels=(
            Panel(
                title="Silent for so many intervals",
                says="Time since a feed last succeeded ÷ the interval in which it should. At 3 somebody is called.",
                unit="none",
                queries=(Query(expr=f"(time() - {success}) / {interval}", legend="{{feed}}"),),
                steps=good_below(1.5, 3),
            ),
            Panel(
                title="Refusals visible after",
                says="From creationDate to commit, of live rows.",
                unit="s",
                queries=(
                    Query(
                        expr=_quantile(0.5, "consent_feed_refusal_delay_seconds", _SERVER, by="feed"),
                        legend="{{feed}}, p50",
                    ),
                    Query(
                        expr=_quantile(0.99, "consent_feed_refusal_delay_seconds", _SERVER, by="feed"),
                        legend="{{feed}}, p99",
                    ),
                ),
                none="no refusals",
            ),
            Panel(
                title="Refusals later than promised",
                says="Share in five minutes. 1 % a month is promised.",
                unit="percentunit",
                queries=(
                    Query(
                        expr='max by (feed) (iyscheck:late_refusals:ratio_rate5m{job=~"$job"} >= 0)',
                        legend="{{feed}}",
                    ),
                ),
                most=1,
                none="no refusals",
            ),
        ),
    )


def _brands() -> Row:
    return Row(
        title="Brands",
        panels=(
            Panel(
                title="Brands by state",
                says="Stale ones and those without a watermark get no permissions for commercial messages.",
                unit="none",
                queries=(Query(expr=f"max by (state) (consent_brands{{{_SERVER}}})", legend="{{state}}"),),
                stacked=True,
            ),
            Panel(
                title="Age of watermarks",
                says="Of all brands. The oldest is often that of a brand which nobody uses any more.",
                unit="s",
                queries=(
                    Query(
                        expr=f"time() - max by (agg) (consent_watermark_timestamp_seconds{{{_SERVER}}})",
                        legend="{{agg}}",
                    ),
                    Query(expr=f"max(consent_freshness_limit_seconds{{{_SERVER}}})", legend="limit"),
                ),
            ),
            Panel(
                title="Age of watermarks of named brands",
                says="Of the brands that the server was told to show one by one.",
                unit="s",
                queries=(
                    Query(
                        expr=f"time() - max by (brand) (consent_brand_watermark_timestamp_seconds{{{_SERVER}}})",
                        legend="{{brand}}",
                    ),
                ),
                none="no brand is named",
            ),
        ),
    )


def _rows() -> Row:
    rows = "consent_feed_rows_total"
    rejected = f"sum({_rate(rows, _LOADER, _REJECTED)})"
    return Row(
        title="Rows",
        width=6,
        panels=(
            Panel(
                title="Rows by outcome",
                says="What became of rows that the loader read.",
                unit="cps",
                queries=(Query(expr=f"sum by (outcome) ({_rate(rows, _LOADER)})", legend="{{outcome}}"),),
                stacked=True,
            ),
            Panel(
                title="Rejected rows",
                says="Share of the rows read. Each holds the watermark of its brand.",
                unit="percentunit",
                queries=(Query(expr=f"{rejected} / sum({_rate(rows, _LOADER)})", legend="rejected"),),
                none="no rows",
            ),
            Panel(
                title="Commits, p99",
                says="How long one takes. It grows at the same number of rows where the disk is slow.",
                unit="s",
                queries=(Query(expr=_quantile(0.99, "consent_feed_commit_seconds", _LOADER), legend="p99"),),
                none="no commits",
            ),
            Panel(
                title="Files that wait",
                says="Files in the directory that are not loaded yet.",
                unit="none",
                queries=(Query(expr=f"max(consent_feed_files_waiting{{{_LOADER}}})", legend="files"),),
            ),
        ),
    )


def _held() -> Row:
    return Row(
        title="What holds data back",
        panels=(
            Panel(
                title="Sources by state",
                says="Files and feeds that the store knows.",
                unit="none",
                queries=(Query(expr=f"max by (state) (consent_sources{{{_SERVER}}})", legend="{{state}}"),),
                stacked=True,
            ),
            Panel(
                title="Rejected rows that wait",
                says="Nobody has accepted them. `iyscheck-loader status` lists their sources.",
                unit="none",
                queries=(Query(expr=f"max(consent_rejected_rows_waiting{{{_SERVER}}})", legend="rows"),),
            ),
            Panel(
                title="Brands whose watermark is withheld",
                says="They become stale if nobody mends or accepts their rejects.",
                unit="none",
                queries=(Query(expr=f"max(consent_brands_withheld{{{_SERVER}}})", legend="brands"),),
            ),
        ),
    )


def _iys() -> Row:
    missed = f"increase(consent_iys_missed_rows_total{{{_LOADER}}}[$__rate_interval])"
    doubts = f"increase(consent_iys_doubts_total{{{_LOADER}}}[$__rate_interval])"
    return Row(
        title="İYS",
        width=6,
        panels=(
            Panel(
                title="Accounts by state",
                says="All should be active. Of those with auth_failed the password is wrong.",
                unit="none",
                queries=(Query(expr=f"sum by (state) (consent_iys_accounts{{{_LOADER}}})", legend="{{state}}"),),
                stacked=True,
                none="no mirror",
            ),
            Panel(
                title="Streams by ending",
                says="How the two streams of each brand were last read. All should be complete.",
                unit="none",
                queries=(Query(expr=f"sum by (ending) (consent_iys_streams{{{_LOADER}}})", legend="{{ending}}"),),
                stacked=True,
                none="no mirror",
            ),
            Panel(
                title="Brands with a hole",
                says="Later rows are in, and earlier ones are not: they become stale. Others wait for `admit`.",
                unit="none",
                queries=(
                    Query(expr=f"sum(consent_iys_holes{{{_LOADER}}})", legend="with a hole"),
                    Query(expr=f"sum(consent_iys_brands_to_admit{{{_LOADER}}})", legend="to admit"),
                ),
                none="no mirror",
            ),
            Panel(
                title="Rows that were missed",
                says="Rows of daily files that pull and push had missed. Of refusals somebody has to know.",
                unit="none",
                queries=(Query(expr=f"sum by (kind) ({missed})", legend="{{kind}}"),),
                none="no mirror",
            ),
            Panel(
                title="Doubts",
                says="Times that a stream did what it should not. It claims nothing until its week is read anew.",
                unit="none",
                queries=(Query(expr=f"sum by (doubt) ({doubts})", legend="{{doubt}}"),),
                none="no mirror",
            ),
            Panel(
                title="Pushes",
                says="Pairs of brand and channel that İYS pushes, and those that it should. None without a receiver.",
                unit="none",
                queries=(Query(expr=f"sum by (state) (consent_push_connections{{{_LOADER}}})", legend="{{state}}"),),
                stacked=True,
                none="no mirror",
            ),
            Panel(
                title="Requests in a day",
                says="Requests to İYS in the last 24 hours. Failed are those that it holds against its senders.",
                unit="none",
                queries=(Query(expr=f"sum by (outcome) (consent_iys_requests{{{_LOADER}}})", legend="{{outcome}}"),),
                stacked=True,
                none="no mirror",
            ),
            Panel(
                title="Answers, and what is allowed",
                says="Answers to requests for pages, and how fast İYS may be asked now: less since it said so.",
                unit="cps",
                queries=(
                    Query(expr=f"sum by (answer) ({_rate('consent_iys_answers_total', _LOADER)})", legend="{{answer}}"),
                    Query(expr=f"sum(consent_iys_rate{{{_LOADER}}})", legend="allowed"),
                ),
                none="no mirror",
            ),
            Panel(
                title="Streams wait for",
                says="By how much the stream is late that waits for longest. It grows where the rate is not enough.",
                unit="s",
                queries=(Query(expr=f"max(consent_iys_queue_late_seconds{{{_LOADER}}})", legend="late"),),
                none="no mirror",
            ),
            Panel(
                title="Rows come late by",
                says="By how much the latest row came later than İYS promises. Watermarks stay behind by as much.",
                unit="s",
                queries=(Query(expr=f"max(consent_iys_lateness_seconds{{{_LOADER}}})", legend="late"),),
                none="no mirror",
            ),
        ),
    )


def _replicas() -> Row:
    fresh = f'consent_serving{{{_SERVER},service="iyscheck.v1.ConsentCheckService/fresh"}}'
    lag = f"consent_replica_lag_seconds{{{_SERVER}}}"
    refused = ("gaps", "digest_mismatches", "rejected_messages")
    return Row(
        title="Replicas",
        width=6,
        panels=(
            Panel(
                title="Behind the primary",
                says="Age of the newest batch that a server's replica has. At 30 s senders leave it for others.",
                unit="s",
                queries=(Query(expr=f"max by (instance) ({lag})", legend="{{instance}}"),),
                steps=good_below(10, 30),
                none="no replicas",
            ),
            Panel(
                title="Fresh replicas",
                says="Servers of replicas that senders prefer, of all there are.",
                unit="none",
                queries=(
                    Query(expr=f"sum({fresh} and on (job, instance) {lag})", legend="fresh"),
                    Query(expr=f"count({lag})", legend="all"),
                ),
                none="no replicas",
            ),
            Panel(
                title="State of replicas",
                says="All should be following. Those that fork or are full need a person.",
                unit="none",
                queries=(
                    Query(
                        expr=f"sum by (consent_replica_state) (consent_replica_state{{{_LOG}}}) > 0",
                        legend="{{consent_replica_state}}",
                    ),
                ),
                stacked=True,
                none="no replicas",
            ),
            Panel(
                title="Rows behind",
                says="Rows that are in the log and not in the replica. It falls where a replica catches up.",
                unit="none",
                queries=(Query(expr=f"max by (instance) (consent_replica_lag_rows{{{_LOG}}})", legend="{{instance}}"),),
                none="no replicas",
            ),
            Panel(
                title="Batches by outcome",
                says="What replicas did with the batches of the log.",
                unit="cps",
                queries=(
                    Query(
                        expr=f"sum by (outcome) ({_rate('consent_replica_batches_total', _LOG)})",
                        legend="{{outcome}}",
                    ),
                ),
                stacked=True,
                none="no replicas",
            ),
            Panel(
                title="Not taken from the log",
                says="Holes, batches after which a store would have been another one, and messages of strangers.",
                unit="none",
                queries=tuple(
                    Query(
                        expr=f"sum(increase(consent_replica_{each}_total{{{_LOG}}}[$__rate_interval]))",
                        legend=each.replace("_", " "),
                    )
                    for each in refused
                ),
                none="no replicas",
            ),
            Panel(
                title="Waits in the outbox",
                says="Age of the oldest batch that NATS does not have yet.",
                unit="s",
                queries=(Query(expr=f"max(consent_outbox_oldest_seconds{{{_LOG}}})", legend="oldest"),),
                steps=good_below(10, 60),
                none="no publisher",
            ),
            Panel(
                title="Size of the outbox",
                says="What the primary keeps: all that NATS does not have, and the last hour. 20 GB is the end.",
                unit="bytes",
                queries=(Query(expr=f"max(consent_outbox_bytes{{{_LOG}}})", legend="outbox"),),
                none="no publisher",
            ),
            Panel(
                title="State of the publisher",
                says="It should be publishing. Fenced, restored and missing wait for a person.",
                unit="none",
                queries=(
                    Query(
                        expr=f"max by (consent_publisher_state) (consent_publisher_state{{{_LOG}}}) > 0",
                        legend="{{consent_publisher_state}}",
                    ),
                ),
                none="no publisher",
            ),
            Panel(
                title="Publishing, p99",
                says="How long NATS takes to have a message on the disks of most servers.",
                unit="s",
                queries=(Query(expr=_quantile(0.99, "consent_publish_seconds", _LOG), legend="p99"),),
                none="no publisher",
            ),
            Panel(
                title="Age of the newest snapshot",
                says="Of the newest of all makers. What begins anew catches up with all that came since.",
                unit="s",
                queries=(Query(expr=f"min(consent_snapshot_age_seconds{{{_LOG}}})", legend="newest"),),
                steps=good_below(4_000, 7_200),
                none="no maker",
            ),
        ),
    )


def _rate(counter: str, *selectors: str) -> str:
    return f"rate({counter}{{{','.join(selectors)}}}[$__rate_interval])"


def _quantile(share: float, histogram: str, *selectors: str, by: str = "") -> str:
    labels = ", ".join(filter(None, (by, "le")))
    return f"histogram_quantile({share}, sum by ({labels}) ({_rate(f'{histogram}_bucket', *selectors)}))"


_BUILD: Final = f"count by (instance, version, rule_version) (consent_build_info{{{_SERVER}}}"
_MARKS: Final = (
    Mark(
        title="Worker started again",
        expr=f"changes(consent_worker_restarts_total{{{_SERVER}}}[1m]) > 0",
        colour="red",
        text="{{instance}}",
    ),
    Mark(
        title="New build or rule",
        expr=f"{_BUILD}) unless {_BUILD} offset 1m)",
        colour="blue",
        text="{{instance}} {{version}} {{rule_version}}",
    ),
    Mark(
        title="Alert",
        expr=_FIRING,
        colour="orange",
        text="{{alertname}} {{instance}}",
    ),
)
_CHOICES: Final = (
    Variable(name="job", title="Server", values="label_values(consent_build_info, job)"),
    Variable(
        name="instance",
        title="Instance",
        values='label_values(consent_build_info{job=~"$job"}, instance)',
        several=True,
    ),
)
_LOADERS: Final = Variable(name="loader", title="Loader", values="label_values(consent_feed_state, job)")

OPS: Final = Dashboard(
    uid="iyscheck-ops",
    title="iyscheck: answers",
    rows=(_now(), _alerts(), _answers(), _latency(), _room(), _callers(), _store_and_build()),
    variables=_CHOICES,
    marks=_MARKS,
)
"""Are answers given, fast, and from fresh data, and is there room for more?"""

FEEDS: Final = Dashboard(
    uid="iyscheck-feeds",
    title="iyscheck: feeds and brands",
    rows=(_promises(), _brands(), _rows(), _held(), _iys(), _replicas()),
    variables=(*_CHOICES, _LOADERS),
    marks=_MARKS,
)
"""Which feeds and brands are behind, and what holds them?"""

DASHBOARDS: Final[Mapping[str, Dashboard]] = {"ops.json": OPS, "feeds.json": FEEDS}
"""By the names of their files."""


def text(dashboard: Dashboard) -> str:
    """Write a dashboard as it stands in its file."""
    return json.dumps(dashboard.as_json(), indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    """Write both files."""
    for name, dashboard in DASHBOARDS.items():
        (Path(__file__).parent / name).write_text(text(dashboard), encoding="utf-8")


if __name__ == "__main__":
    main()
