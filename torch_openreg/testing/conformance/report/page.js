// The map: a line for each operator, a cell for each dtype with the worst outcome of its rows. Selecting one lists the rows.
"use strict";
{
  const data = JSON.parse(document.getElementById("data").textContent);
  const LETTER = {mismatch: "M", unsupported: "U", error: "E", crash: "C", timeout: "T"};
  const DTYPE = 0, MODE = 1, OUTCOME = 2, GAP = 3, DETAIL = 4;
  const FIRST = 150; // lines drawn at once; a button draws the rest
  const byId = id => document.getElementById(id);
  const failing = new Set(data.failing.map(name => data.outcomes.indexOf(name)));
  const bad = row => failing.has(row[OUTCOME]) && data.gaps[row[GAP]] !== "covered" || data.gaps[row[GAP]] === "unexpected pass";
  const scored = row => failing.has(row[OUTCOME]) || data.outcomes[row[OUTCOME]] === "pass";
  const operators = data.operators.map(([name, level, family, rows]) => ({name, level, family, rows, bad: rows.filter(bad).length}));
  operators.sort((a, b) => (b.bad > 0) - (a.bad > 0));
  let all = false, selected = "";

  function element(tag, className, text = "") {
    const made = document.createElement(tag);
    made.className = className;
    made.textContent = text;
    return made;
  }

  const idOf = (operator, row) => `${operator.name}:${data.dtypes[row[DTYPE]]}:${data.modes[row[MODE]]}`;

  // What fails comes before what passes against the gap file, before what the gap file covers, before what passes, before what does not count.
  const places = new Map([...data.failing, "pass", "cpu-cannot", "skip"].map((name, place) => [data.outcomes.indexOf(name), place]));
  const severity = row => places.get(row[OUTCOME]) + (bad(row) ? (failing.has(row[OUTCOME]) ? 0 : 2) : 10);
  const worst = rows => rows.reduce((a, b) => severity(b) < severity(a) ? b : a);

  function cell(row) {
    const outcome = data.outcomes[row[OUTCOME]], gap = data.gaps[row[GAP]];
    return element("span", `cell ${outcome} ${gap.replace(" ", "-")}`, gap === "unexpected pass" ? "!" : LETTER[outcome] || "");
  }

  function line(operator, rows) {
    const made = element("div", "line");
    const name = element("span", "name", operator.name);
    name.title = `${operator.name}\n${operator.level} ${operator.family}`;
    name.dataset.op = operator.name;
    made.append(name);
    for (let dtype = 0; dtype < data.dtypes.length; ++dtype) {
      const members = rows.filter(row => row[DTYPE] === dtype);
      const box = members.length ? cell(worst(members)) : element("span", "cell void");
      if (members.length) {
        box.title = members.map(row => `${data.modes[row[MODE]]}: ${data.outcomes[row[OUTCOME]]}`).join("\n");
        box.dataset.op = operator.name;
        box.dataset.dtype = data.dtypes[dtype];
      }
      made.append(box);
    }
    const counted = rows.filter(scored);
    made.append(element("span", "tail", `${counted.filter(row => !failing.has(row[OUTCOME])).length} / ${counted.length}`));
    return made;
  }

  function head() {
    const made = element("div", "line head");
    made.append(element("span", "name"));
    for (const dtype of data.dtypes) made.append(element("span", "dtype", dtype));
    made.append(element("span", "tail", "pass / of"));
    return made;
  }

  function draw() {
    const words = byId("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
    const level = byId("level").value, mode = data.modes.indexOf(byId("mode").value), only = byId("bad").checked;
    const found = [];
    for (const operator of operators) {
      if (level && operator.level !== level) continue;
      const text = `${operator.name} ${operator.family}`.toLowerCase();
      const rows = operator.rows.filter(row => (mode < 0 || row[MODE] === mode) &&
        words.every(word => text.includes(word) || idOf(operator, row).toLowerCase().includes(word)));
      if (rows.length && (!only || rows.some(bad))) found.push([operator, rows]);
    }
    const drawn = all ? found : found.slice(0, FIRST);
    byId("grid").replaceChildren(head(), ...drawn.map(([operator, rows]) => line(operator, rows)));
    byId("shown").textContent = `${found.length} of ${operators.length} names`;
    if (drawn.length < found.length) {
      const more = element("button", "", `Show ${found.length - drawn.length} more`);
      more.type = "button";
      more.onclick = () => { all = true; draw(); };
      byId("grid").append(more);
    }
    mark();
  }

  function mark() {
    for (const box of byId("grid").querySelectorAll("[data-op]"))
      box.classList.toggle("selected", selected === `${box.dataset.op}:${box.dataset.dtype || ""}`);
  }

  function command(text) {
    const made = element("p", "command"), button = element("button", "", "copy");
    button.type = "button";
    button.dataset.copy = text;
    made.append(element("code", "", text), button);
    return made;
  }

  function select(name, dtype = "", only = "") {
    const operator = operators.find(entry => entry.name === name);
    if (!operator) return;
    selected = `${name}:${dtype}`;
    const rows = operator.rows.filter(row => (!dtype || data.dtypes[row[DTYPE]] === dtype) && (!only || idOf(operator, row) === only))
      .sort((a, b) => severity(a) - severity(b));
    const parts = [element("h3", "", `${name}${dtype ? `, ${dtype}` : ""}`), element("p", "note", `${operator.level} ${operator.family}, ${rows.length} rows`)];
    for (const row of rows) {
      const outcome = data.outcomes[row[OUTCOME]], title = element("p", "");
      const place = dtype ? data.modes[row[MODE]] : `${data.dtypes[row[DTYPE]]} ${data.modes[row[MODE]]}`;
      title.append(element("span", `chip ${outcome}`, outcome), ` ${place}`);
      parts.push(title);
      if (row[DETAIL] < 0) continue;
      const [sentence, sample, summary, reason] = data.details[row[DETAIL]];
      if (data.gaps[row[GAP]]) parts.push(element("p", "note", `gap file, ${data.gaps[row[GAP]]}: ${reason}`));
      if (sentence) parts.push(element("pre", "", sentence));
      if (summary) parts.push(element("pre", "", summary));
      if (failing.has(row[OUTCOME]))
        parts.push(command(`openreg conformance repro '${idOf(operator, row)}${sample === null ? "" : `#${sample}`}' ${data.options}`.trim()));
    }
    byId("details").replaceChildren(...parts);
    mark();
  }

  function follow() {
    // #row=OP:DTYPE:MODE selects the row.
    const [, id] = decodeURIComponent(location.hash).match(/^#row=(.+)$/) || [];
    if (!id) return;
    const [dtype] = id.split(":").slice(-2), name = id.split(":").slice(0, -2).join(":");
    byId("filter").value = name;
    byId("level").value = byId("mode").value = "";
    byId("bad").checked = false;
    draw();
    select(name, dtype, id);
    byId("map").scrollIntoView();
  }

  for (const [id, names] of [["level", [...new Set(operators.map(operator => operator.level))].sort()], ["mode", data.modes]]) {
    byId(id).append(new Option("all", ""), ...names.map(name => new Option(name, name)));
    byId(id).onchange = draw;
  }
  for (const outcome of data.outcomes) {
    const entry = element("span", "");
    entry.append(element("span", `cell ${outcome}`, LETTER[outcome] || ""), outcome);
    byId("legend").append(entry);
  }
  const covered = element("span", "");
  covered.append(element("span", "cell error covered", "E"), "pale: covered by the gap file");
  byId("legend").append(covered);
  byId("filter").oninput = draw;
  byId("bad").onchange = draw;
  byId("tools").onsubmit = event => event.preventDefault();
  document.addEventListener("click", event => {
    const box = event.target.closest("#grid [data-op]"), button = event.target.closest("[data-copy]");
    if (box) select(box.dataset.op, box.dataset.dtype);
    if (button) navigator.clipboard?.writeText(button.dataset.copy).then(() => { button.textContent = "copied"; });
  });
  addEventListener("hashchange", follow);
  draw();
  follow();
}
