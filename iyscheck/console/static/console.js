// The console's own script: draws the charts, says whether the page is live, and forgets the typed address.
"use strict";
(() => {
  const byId = (id) => document.getElementById(id);

  // --- Explain: the address goes out with the question and stays nowhere -----------------------------------
  const forget = () => { const field = byId("address"); if (field) field.value = ""; };
  document.addEventListener("htmx:before:request", (event) => {
    if (event.target.id === "ask") forget(); // what is sent was read before
  });
  document.addEventListener("htmx:finally:request", (event) => {
    // Wherever the focus was: the next address can be typed at once, and the answer is said aloud by itself.
    if (event.target.id === "ask") byId("address").focus();
  });
  window.addEventListener("pagehide", forget);
  window.addEventListener("pageshow", forget);

  // --- Live ------------------------------------------------------------------------------------------------
  const live = byId("live");
  const say = (lost) => {
    if (!live) return;
    const text = lost ? live.dataset.lost : live.dataset.live;
    live.classList.toggle("lost", lost);
    if (live.textContent !== text) live.textContent = text; // said aloud when it changes only
  };
  const stream = byId("stream");
  let refresh = () => {}; // there may be no charts
  let connection = null;
  let heard = Date.now();
  document.addEventListener("htmx:sse:after:message", () => { heard = Date.now(); say(false); refresh(); });
  document.addEventListener("htmx:sse:error", (event) => {
    if (event.detail.status === 401) window.location.assign("/login?ended=1");
    say(true);
  });
  document.addEventListener("htmx:sse:after:connection", (event) => { connection = event.detail.connection; });
  if (stream) window.setInterval(() => {
    if (document.hidden || Date.now() - heard < 20_000) return;
    // There is news every two seconds: this connection hangs, or the first one never came about, which nobody retries.
    heard = Date.now();
    say(true);
    connection?.reader?.cancel();
    window.htmx.trigger(stream, "again");
  }, 2_000);

  // --- Charts ----------------------------------------------------------------------------------------------
  const places = [...document.querySelectorAll(".chart")];
  if (!places.length || typeof uPlot === "undefined") return;
  const span = byId("span");
  const language = document.documentElement.lang;
  const number = new Intl.NumberFormat(language, { maximumFractionDigits: 2 });
  const clock = (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Europe/Istanbul");
  const hours = uPlot.fmtDate("{HH}:{mm}");
  const moments = uPlot.fmtDate("{HH}:{mm}:{ss}");
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const LINES = {
    permitted: { stroke: "--one", width: 2 }, denied: { stroke: "--two", width: 2, dash: [7, 4] },
    p50: { stroke: "--one", width: 2 }, p99: { stroke: "--two", width: 2, dash: [7, 4] },
    probe: { stroke: "--three", width: 2, dash: [2, 4] },
  };
  const keys = { answers: ["permitted", "denied"], latency: ["p50", "p99", "probe"] };
  const plots = new Map();
  let last = null;
  let asked = 0;

  function options(place, width) {
    const names = keys[place.dataset.chart];
    const readout = document.createElement("div");
    readout.className = "readout";
    const axis = () => ({ stroke: colour("--soft"), grid: { stroke: colour("--fine"), width: 1 },
      ticks: { stroke: colour("--line"), width: 1, size: 4 }, font: "12px system-ui, sans-serif" });
    return {
      width, height: 230, tzDate: clock, legend: { show: false }, padding: [12, 8, 0, 0],
      cursor: { y: false, drag: { x: false, y: false } },
      scales: { y: { range: (_, low, high) => [0, high > 0 ? high * 1.12 : 1] } },
      axes: [{ ...axis(), size: 30, space: 64, values: (_, ticks) => ticks.map((at) => (at === null ? "" : hours(clock(at)))) },
        { ...axis(), size: 58, values: (_, ticks) => ticks.map((at) => number.format(at)) }],
      series: [{}, ...names.map((name) => ({ ...LINES[name], stroke: colour(LINES[name].stroke), points: { show: false } }))],
      hooks: {
        init: [(plot) => plot.over.appendChild(readout)],
        setCursor: [(plot) => {
          const at = plot.cursor.idx;
          readout.textContent = at === null || at === undefined ? "" : [moments(clock(plot.data[0][at])),
            ...names.map((name, place_) => [name, plot.data[place_ + 1][at]])
              .filter(([, value]) => value !== null && value !== undefined)
              .map(([name, value]) => `${place.dataset[name]} ${number.format(value)}`)].join("  ");
        }],
      },
    };
  }

  function draw() {
    if (!last) return;
    for (const place of places) {
      const names = keys[place.dataset.chart];
      const data = [last.begins, ...names.map((name) => last[place.dataset.chart][name])];
      const plot = plots.get(place);
      if (plot) plot.setData(data);
      else plots.set(place, new uPlot(options(place, place.clientWidth), data, place));
    }
  }

  function anew() {
    for (const plot of plots.values()) plot.destroy();
    plots.clear();
    draw();
  }

  refresh = async () => {
    const mine = ++asked;
    try {
      const answer = await fetch(`/overview/series?minutes=${encodeURIComponent(span.value)}`, { mode: "same-origin" });
      if (!answer.ok || mine !== asked) return;
      last = await answer.json();
      draw();
    } catch { say(true); }
  };

  span.addEventListener("change", refresh);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", anew);
  new ResizeObserver(() => {
    for (const [place, plot] of plots) if (plot.width !== place.clientWidth) plot.setSize({ width: place.clientWidth, height: 230 });
  }).observe(document.body);
  refresh();
})();
