"use strict";
// Item browser of a report. Data are read from the page's JSON and only ever written as text.
(() => {
  const root = document.documentElement;
  const $ = (id) => document.getElementById(id);
  const PAGE = 100;
  const WORDS = { fail: "Failed", error: "Errors", ungraded: "Not graded", pending: "Pending", filtered: "Filtered", pass: "Passed" };
  const FACETS = ["model", "prompt", "category", "status"];
  const EXPECTED = /^(expected|answer|target|label|reference|ideal)$/i;
  const THEMES = ["auto", "light", "dark"];
  let arms = [], texts = [], rows = [], found = [], shown = PAGE;
  let state = {};

  const make = (tag, className, ...children) => {
    const node = document.createElement(tag);
    if (className) node.className = className;
    node.append(...children.filter((child) => child !== null && child !== undefined));
    return node;
  };
  const text = (index) => (index === undefined || index === null ? "" : texts[index]);
  const visible = (string) => string.split(/(‹U\+[0-9A-F]{4,6}›)/).map((part, i) => (i % 2 ? make("mark", "invisible", part) : part));
  const data = (tag, className, string) => {
    const node = make(tag, className, ...visible(string));
    node.dir = "auto";
    return node;
  };
  const icon = (name) => {
    const node = $("icon").content.firstElementChild.cloneNode(true);
    node.classList.add(name);
    node.firstElementChild.setAttribute("href", "#i-" + name);
    return node;
  };
  const badge = (arm) => {
    const node = $("badge").content.firstElementChild.cloneNode(true);
    node.classList.add("c" + arm.color);
    node.firstElementChild.setAttribute("href", "#m-" + arm.shape);
    node.lastElementChild.textContent = arm.n;
    return node;
  };
  const armOf = (row) => arms[row.arm] || { n: "?", label: "", model: "", prompt: "", color: 5, shape: 0 };
  const armMark = (row) => make("span", "arm", badge(armOf(row)), data("bdi", "label", armOf(row).label));
  const group = (number) => number.toLocaleString("en-US");

  // The state lives in the hash, so that any view can be linked to. A hash without "=" is a section of the page.
  const readHash = () => {
    const hash = location.hash.slice(1);
    if (hash && !hash.includes("=")) return false;
    state = Object.fromEntries(new URLSearchParams(hash));
    return true;
  };
  const link = (changes) => {
    const entries = Object.entries({ ...state, ...changes }).filter(([, value]) => value);
    return "#" + new URLSearchParams(entries);
  };
  const go = (changes) => {
    history.replaceState(null, "", link(changes));
    readHash();
    show();
  };

  const facet = { model: (row) => armOf(row).model, prompt: (row) => armOf(row).prompt, category: (row) => text(row.category), status: (row) => row.status, verdict: (row) => row.mark, id: (row) => text(row.sample), grader: (row) => (row.grades || []).map((grade) => grade[0]).join(" "), code: (row) => row.code || "" };
  const haystack = (row) => {
    row.hay ??= [row.sample, row.category, row.why, row.output, row.message, row.refusal, ...(row.fields || []).map((pair) => pair[1]), ...(row.messages || []).map((pair) => pair[1]), ...(row.grades || []).map((grade) => grade[4])].map(text).concat(armOf(row).label, row.code || "", row.id).join("\n").toLowerCase();
    return row.hay;
  };
  const matcher = () => {
    const words = (state.q || "").toLowerCase().split(/\s+/).filter(Boolean).map((word) => {
      const [, key, value] = word.match(/^(\w+):(.+)$/) || [];
      return facet[key] ? (row) => facet[key](row).toLowerCase().includes(value) : (row) => haystack(row).includes(word);
    });
    const equal = FACETS.filter((key) => state[key]);
    return (row) => equal.every((key) => facet[key](row) === state[key]) && words.every((word) => word(row));
  };

  const showChips = (matching) => {
    const counts = {};
    for (const row of matching) counts[row.mark] = (counts[row.mark] || 0) + 1;
    const present = new Set(rows.map((row) => row.mark));
    const chip = (mark, word, count) => {
      const node = make("button", "", mark ? icon(mark) : null, word, make("b", "", group(count)));
      node.type = "button";
      node.setAttribute("aria-pressed", String((state.verdict || "") === mark));
      node.onclick = () => go({ verdict: mark, item: "" });
      return node;
    };
    $("chips").replaceChildren(chip("", "All", matching.length), ...Object.keys(WORDS).filter((mark) => present.has(mark)).map((mark) => chip(mark, WORDS[mark], counts[mark] || 0)));
  };
  const listed = (row) => {
    const id = data("span", "id", text(row.sample));
    if (row.category !== undefined) id.append(data("small", "", text(row.category)));
    if (row.repeat) id.append(make("small", "", "repeat " + row.repeat));
    const node = make("a", "", icon(row.mark), id, armMark(row), data("span", "excerpt", text(row.why) || text(row.output).slice(0, 240)));
    node.href = link({ item: row.id });
    node.onclick = (event) => {
      if (event.metaKey || event.ctrlKey || event.shiftKey) return;
      event.preventDefault();
      go({ item: row.id });
    };
    return make("li", "", node);
  };
  const showList = () => {
    const part = found.slice(0, shown).map(listed);
    $("list").replaceChildren(...(part.length ? part : [make("li", "nothing", "No row matches.")]));
    $("more").hidden = found.length <= shown;
    $("count").textContent = found.length === rows.length ? group(rows.length) + " rows" : group(found.length) + " of " + group(rows.length) + " rows";
  };

  const section = (title, ...children) => make("section", "", make("h3", "", title), ...children);
  const block = (title, index) => (index === undefined ? null : section(title, data("pre", "", text(index) || "(empty)")));
  const number = (name, value) => (value === undefined || value === null || value === "" ? null : make("div", "", make("dt", "", name), make("dd", "", ...visible(String(value)))));
  const detailHead = (row) => {
    const title = make("h2", "", icon(row.mark), data("bdi", "", text(row.sample)));
    title.id = "detail-title";
    const word = row.mark === "error" ? "Error" : WORDS[row.mark];
    return make("header", "", title, make("p", "about-item", word + (row.status === "ok" || row.status === row.mark ? "" : ", " + row.status), armMark(row), row.category === undefined ? null : data("span", "", text(row.category)), row.repeat ? "repeat " + row.repeat : null));
  };
  const detailSiblings = (row) => {
    const same = rows.filter((other) => other.sample === row.sample);
    if (same.length < 2) return null;
    same.sort((one, other) => one.arm - other.arm || (one.repeat || 0) - (other.repeat || 0));
    return section("The same sample in all arms", make("div", "siblings", ...same.map((other) => {
      const node = make("a", "", icon(other.mark), badge(armOf(other)), data("bdi", "", armOf(other).label + (other.repeat ? " [" + other.repeat + "]" : "")));
      node.href = link({ item: other.id });
      if (other === row) node.setAttribute("aria-current", "true");
      node.onclick = (event) => { event.preventDefault(); go({ item: other.id }); };
      return node;
    })));
  };
  const detailGrades = (row) => {
    if (!row.grades) return null;
    return section("Grades", make("ul", "grades", ...row.grades.map(([name, type, passed, score, reason, hard, code]) => make("li", "", icon(passed === null ? "ungraded" : passed ? "pass" : "fail"), make("span", "name", ...visible(name), hard ? make("small", "", type + ", hard") : type === name ? null : make("small", "", type)), data("span", "reason", text(reason) || code || ""), make("span", "soft", score === null ? "–" : String(Math.round(score * 1000) / 1000))))));
  };
  const detailFields = (row) => row.fields && section("Sample", make("dl", "fields", ...row.fields.map(([name, value]) => make("div", EXPECTED.test(text(name)) ? "expected" : "", data("dt", "", text(name)), make("dd", "", data("pre", "", text(value)))))));
  const detailMessages = (row) => row.messages && section("Prompt", make("div", "messages", ...row.messages.map(([role, value]) => make("div", "", make("p", "role", ...visible(role)), data("pre", "", text(value))))));
  const detailNumbers = (row) => {
    const [sent, got, cached, reasoning] = row.tokens || [];
    return section("Usage", make("dl", "numbers", ...[
      number("Prompt tokens", sent ?? "not reported"), number("Cached", cached), number("Completion tokens", got ?? "not reported"), number("Reasoning", reasoning),
      number("Cost", row.usd === undefined ? "unknown" : "$" + row.usd.toPrecision(3)), number("Latency", row.latency === undefined ? null : row.latency < 1 ? Math.round(row.latency * 1000) + " ms" : row.latency.toFixed(2) + " s"),
      number("Attempts", row.attempts), number("Finish reason", row.finish), number("Answered as", row.answered), number("Flags", (row.flags || []).join(", ")),
    ].filter(Boolean)));
  };
  const showDetail = () => {
    const row = state.item && rows.find((other) => other.id.startsWith(state.item));
    const dialog = $("detail");
    if (!row) return dialog.open && dialog.close();
    const place = found.indexOf(row);
    const failure = row.code || row.message ? section("Error", make("p", "error-box", ...visible([row.code, row.http && !text(row.message).startsWith("HTTP " + row.http + ":") && "HTTP " + row.http, text(row.message)].filter(Boolean).join(": ")))) : null;
    $("detail-body").replaceChildren(...[detailHead(row), failure, detailGrades(row), block("Output", row.output), block("Refusal", row.refusal), block("Tool calls", row.tools), detailFields(row), block("Reasoning", row.reasoning), detailMessages(row), detailSiblings(row), detailNumbers(row), block("Parameters", row.params)].filter(Boolean));
    $("position").textContent = place < 0 ? "" : group(place + 1) + " of " + group(found.length);
    $("previous").disabled = place <= 0;
    $("next").disabled = place < 0 || place >= found.length - 1;
    $("permalink").href = "#item=" + row.id;
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
    $("detail-body").focus({ preventScroll: true });
  };
  const step = (by) => {
    const place = found.findIndex((row) => row.id === state.item) + by;
    if (state.item && found[place]) go({ item: found[place].id });
  };
  const move = (by) => {
    const links = [...$("list").querySelectorAll("a")];
    const place = links.indexOf(document.activeElement);
    links[Math.min(Math.max(place + by, 0), links.length - 1)]?.focus();
  };

  let last = null;
  const show = () => {
    const theme = THEMES.includes(state.theme) ? state.theme : "auto";
    root.dataset.theme = theme;
    $("theme").textContent = theme[0].toUpperCase() + theme.slice(1);
    const view = JSON.stringify([state.q, state.verdict, ...FACETS.map((key) => state[key])]);
    if (view !== last) {
      last = view;
      shown = PAGE;
      const matching = rows.filter(matcher());
      found = state.verdict ? matching.filter((row) => row.mark === state.verdict) : matching;
      if ($("q").value !== (state.q || "")) $("q").value = state.q || "";
      for (const key of FACETS) $("f-" + key).value = state[key] || "";
      showChips(matching);
      showList();
    }
    sortBoard();
    showDetail();
  };

  const sortBoard = () => {
    const board = $("board");
    if (!board || !state.sort) return;
    const column = Math.abs(Number(state.sort)) - 1, down = state.sort.startsWith("-");
    const value = (line) => line.cells[column]?.dataset.v ?? "";
    const lines = [...board.tBodies[0].rows].sort((one, other) => (value(one) === "") - (value(other) === "") || (value(one) - value(other)) * (down ? -1 : 1));
    board.tBodies[0].append(...lines);
    [...board.tHead.rows[0].cells].forEach((cell, i) => (i === column ? cell.setAttribute("aria-sort", down ? "descending" : "ascending") : cell.removeAttribute("aria-sort")));
  };
  const armBoard = () => {
    for (const cell of $("board")?.tHead.rows[0].cells || []) {
      if (!cell.dataset.sort) continue;
      const button = make("button", "", ...cell.childNodes);
      button.type = "button";
      const up = String(cell.cellIndex + 1), down = "-" + up;
      button.onclick = () => go({ sort: state.sort === up ? down : state.sort === down ? up : cell.dataset.first ? down : up });
      cell.append(button);
    }
  };

  // A cell that a spreadsheet would take for a formula gets an apostrophe; the run's tables keep the text as it came.
  const csvCell = (value) => {
    const string = value === null || value === undefined ? "" : typeof value === "string" && /^[=+\-@\t\r\0]/.test(value) ? "'" + value : String(value);
    return /[",\r\n]/.test(string) ? '"' + string.replaceAll('"', '""') + '"' : string;
  };
  const plain = (row) => ({ sample_id: text(row.sample), category: text(row.category), model: armOf(row).model, prompt: armOf(row).prompt, repeat: row.repeat || 0, verdict: row.mark, status: row.status, score: row.score ?? null, reason: text(row.why), output: row.output === undefined ? null : text(row.output), error_code: row.code || null, cost_usd: row.usd ?? null, latency_s: row.latency ?? null });
  const save = (name, type, content) => {
    const node = make("a");
    node.href = URL.createObjectURL(new Blob([content], { type }));
    node.download = name;
    node.click();
    setTimeout(() => URL.revokeObjectURL(node.href), 10000);
  };
  const saveCsv = () => {
    const lines = found.map(plain);
    if (lines.length) save("items.csv", "text/csv", [Object.keys(lines[0]), ...lines.map(Object.values)].map((line) => line.map(csvCell).join(",")).join("\r\n") + "\r\n");
  };

  const unpack = async () => {
    const node = $("data"), value = JSON.parse(node.textContent);
    if (!node.dataset.packed) return value;
    const bytes = Uint8Array.from(atob(value), (char) => char.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
  };
  const fillSelects = () => {
    for (const key of FACETS) {
      const values = [...new Set(rows.map(facet[key]))].filter(Boolean).sort();
      $("f-" + key).replaceChildren(new Option("All", ""), ...values.map((value) => new Option(value, value)));
      $("f-" + key).parentElement.hidden = values.length < 2;
      $("f-" + key).onchange = (event) => go({ [key]: event.target.value, item: "" });
    }
  };
  const onKey = (event) => {
    if (event.metaKey || event.ctrlKey || event.altKey) return;
    if (/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return event.key === "Escape" && event.target.blur();
    const by = { j: 1, k: -1 }[event.key];
    if (by) $("detail").open ? step(by) : move(by);
    else if (event.key === "/") $("q").focus();
    else return;
    event.preventDefault();
  };
  const listen = () => {
    let timer = 0;
    $("q").oninput = (event) => { clearTimeout(timer); timer = setTimeout(() => go({ q: event.target.value, item: "" }), 120); };
    $("more").onclick = () => { shown += PAGE; showList(); };
    $("reset").onclick = () => go({ q: "", verdict: "", item: "", model: "", prompt: "", category: "", status: "" });
    $("theme").onclick = () => go({ theme: { auto: "light", light: "dark", dark: "" }[root.dataset.theme] });
    $("csv").onclick = saveCsv;
    $("jsonl").onclick = () => save("items.jsonl", "application/jsonl", found.map((row) => JSON.stringify(plain(row)) + "\n").join(""));
    $("previous").onclick = () => step(-1);
    $("next").onclick = () => step(1);
    $("close").onclick = () => $("detail").close();
    $("detail").onclose = () => state.item && go({ item: "" });
    $("detail").onclick = (event) => event.target === $("detail") && $("detail").close();
    addEventListener("keydown", onKey);
    addEventListener("hashchange", () => {
      // A link of the page sets filters or an item; theme and order stay as chosen.
      const { theme, sort } = state;
      if (!readHash()) return;
      go({ theme: state.theme || theme, sort: state.sort || sort });
      if (FACETS.some((key) => state[key]) && !state.item) $("items").scrollIntoView();
    });
  };
  const start = async () => {
    readHash();
    root.dataset.theme = THEMES.includes(state.theme) ? state.theme : "auto";
    try {
      const unpacked = await unpack();
      ({ arms, texts, rows } = unpacked);
    } catch (error) {
      root.dataset.failed = String(error);
      return;
    }
    root.classList.add("ready");
    fillSelects();
    armBoard();
    listen();
    show();
  };
  start();
})();
