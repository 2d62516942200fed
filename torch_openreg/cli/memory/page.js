// Draws a memory snapshot: totals, timeline, lives of allocations, segments, lines of code. Data come from the page itself.
// The fragment of the address selects: #device=0&block=ADDRESS or #device=0&allocation=NUMBER.
"use strict";

const report = JSON.parse(document.getElementById("snapshot").textContent);
const MOST_BOXES = 20000, MOST_SEGMENTS = 200, MOST_SITES = 500;
const find = (id) => document.getElementById(id);
let device = report.devices[0], byTime = false, allSegments = false;

function size(bytes) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (Math.abs(bytes) >= 1024 && unit < units.length - 1) { bytes /= 1024; ++unit; }
  return `${unit ? bytes.toFixed(1) : bytes} ${units[unit]}`;
}
const hex = (address) => "0x" + address.toString(16);
const duration = (us) => us < 1e3 ? `${us} µs` : us < 1e6 ? `${(us / 1e3).toFixed(1)} ms` : `${(us / 1e6).toFixed(2)} s`;
const when = (event, open) => event === null ? open : `event ${event}, at ${duration(device.times[event])}`;
const stackLabel = (stack) => report.stacks[stack].label;
// Neighbouring numbers get distant colours.
const colour = (stack) => stack === 0 ? "hsl(0 0% 60%)" : `hsl(${(stack * 137.5) % 360} 55% 55%)`;

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}
function shape(parent, name, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  parent.append(made);
  return made;
}
function canvas(parent, height) {
  const width = Math.max(320, parent.clientWidth);
  const svg = shape(parent, "svg", {viewBox: `0 0 ${width} ${height}`, height});
  return {svg, width, height};
}
const fact = ([name, value]) => [element("dt", {}, name), element("dd", {}, value)];

// ---- the x axis: events are evenly spaced, or lie at their times ----
const events = () => device.actions.length;
function position(event, width) {
  if (byTime) return width * device.times[event] / Math.max(1, device.times[events() - 1]);
  return width * (event + 1) / (events() + 1);
}
const beginOf = (event, width) => event === null ? 0 : position(event, width);
const endOf = (event, width) => event === null ? width : position(event, width);
function eventAt(x, width) {
  if (!byTime) return Math.max(-1, Math.min(events() - 1, Math.floor(x / width * (events() + 1)) - 1));
  let low = 0, high = events();
  while (low < high) {
    const middle = (low + high) >> 1;
    if (position(middle, width) <= x) low = middle + 1; else high = middle;
  }
  return low - 1;
}

// ---- parts of the page ----
function drawDevices() {
  find("devices").replaceChildren(...report.devices.map((each) => {
    const button = element("button", {"aria-pressed": each === device, "data-device": each.index}, `device ${each.index}`);
    button.onclick = () => { location.hash = `device=${each.index}`; };
    return button;
  }));
}

function drawTotals() {
  const totals = device.totals;
  find("totals").replaceChildren(...[
    ["reserved", size(totals.reserved)], ["allocated", size(totals.allocated)], ["of it rounding", size(totals.rounding)],
    ["pending", size(totals.pending)], ["free in the cache", size(totals.free)], ["largest free block", size(totals.largest_free)],
    ["segments", String(totals.segments)], ["blocks in use", String(totals.blocks)], ["events", String(events())],
    ["peak requested", device.peak === null ? "no trace" : size(device.curve[device.peak][0])],
    ["out of memory", String(device.ooms.length)],
  ].map((entry) => element("div", {}, ...fact(entry))));
}

function drawTimeline() {
  const place = find("timeline");
  place.replaceChildren();
  if (events() === 0) return place.append(element("p", {class: "note"}, "No events were recorded."));
  const {svg, width, height} = canvas(place, 180);
  const top = device.curve.reduce((most, point) => Math.max(most, point[0], point[1]), 1);
  const y = (bytes) => height - (height - 22) * bytes / top;
  for (const [name, begin, end] of device.annotations) {
    const last = Math.max(1, device.times[events() - 1]);
    if (!byTime) break;
    const left = Math.max(0, width * begin / last), right = end === null ? width : Math.min(width, width * end / last);
    shape(shape(svg, "rect", {class: "annotation", x: left, y: 0, width: Math.max(1, right - left), height: 8}), "title", {}, name);
  }
  ["requested", "reserved"].forEach((kind, column) => {
    // One step per pixel at most; of several events there the highest counts.
    const steps = [];
    for (let event = 0; event < events(); ++event) {
      const x = Math.round(position(event, width)), bytes = device.curve[event][column], last = steps.at(-1);
      if (last?.x === x) last.bytes = Math.max(last.bytes, bytes); else steps.push({x, bytes});
    }
    const line = steps.map(({x, bytes}) => `H${x}V${y(bytes)}`).join("") + `H${width}`;
    const start = `M${steps[0].x},${column === 0 ? height : y(steps[0].bytes)}`;
    shape(svg, "path", {class: kind, d: start + line + (column === 0 ? `V${height}Z` : "")});
  });
  for (const [event, wanted] of device.ooms) {
    const x = position(event, width);
    const mark = shape(svg, "path", {class: "oom", d: `M${x - 5},8H${x + 5}L${x},18Z`, "data-event": event});
    shape(mark, "title", {}, `out of memory: ${size(wanted)} wanted`);
  }
  shape(svg, "text", {x: 4, y: 15}, `${size(top)}; filled: requested, dashed: reserved`);
  const cursor = shape(svg, "line", {class: "cursor", y1: 0, y2: height, x1: -1, x2: -1});
  const eventUnder = (pointer) => {
    const box = svg.getBoundingClientRect();
    return eventAt((pointer.clientX - box.left) * width / box.width, width);
  };
  svg.onmousemove = (pointer) => {
    const event = eventUnder(pointer);
    if (event < 0) return;
    const x = position(event, width), [requested, reserved] = device.curve[event];
    cursor.setAttribute("x1", x);
    cursor.setAttribute("x2", x);
    find("at").textContent = `${when(event)}: ${device.actions[event]}; ${size(requested)} requested, ${size(reserved)} reserved`;
  };
  svg.onclick = (pointer) => showEvent(eventUnder(pointer));
}

function drawAllocations() {
  const place = find("allocations");
  place.replaceChildren();
  if (events() === 0) return place.append(element("p", {class: "note"}, "No events were recorded."));
  const {svg, width, height} = canvas(place, 320);
  const total = Math.max(1, device.ranges.reduce((sum, range) => sum + range[1], 0));
  let below = 0;
  const floors = device.ranges.map(([begin, length]) => { const floor = below; below += length; return [begin, length, floor]; });
  const y = (address) => {
    let low = 0, high = floors.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (floors[middle][0] <= address) low = middle; else high = middle - 1;
    }
    return height * (1 - (floors[low][2] + address - floors[low][0]) / total);
  };
  const numbered = device.allocations.map((allocation, number) => [allocation, number]);
  const drawn = numbered.length <= MOST_BOXES ? numbered : numbered.sort((a, b) => b[0][1] - a[0][1]).slice(0, MOST_BOXES);
  for (const [[address, bytes, begin, end, stack], number] of drawn) {
    const left = beginOf(begin, width), tall = Math.max(1, height * bytes / total);
    shape(svg, "rect", {class: "box", x: left, width: Math.max(1, endOf(end, width) - left), y: y(address) - tall, height: tall,
                        fill: colour(stack), "data-allocation": number});
  }
  if (drawn.length < numbered.length)
    place.append(element("p", {class: "note"}, `The ${numbered.length - drawn.length} smallest allocations are not drawn.`));
}

function drawSegments() {
  const place = find("segments");
  const sorted = [...device.segments].sort((a, b) => b.size - a.size);
  const shown = allSegments ? sorted : sorted.slice(0, MOST_SEGMENTS);
  place.replaceChildren();
  for (const segment of shown) {
    const pool = segment.pool.some(Boolean) ? `, pool ${segment.pool}` : "";
    const text = `${size(segment.size)}, ${segment.kind}${segment.expandable ? ", expandable" : ""}, stream ${segment.stream}${pool}`;
    const bar = element("div");
    const svg = shape(bar, "svg", {viewBox: "0 0 1000 18", height: 18, preserveAspectRatio: "none"});
    for (const [address, bytes, , state, stack] of segment.blocks) {
      const x = 1000 * (address - segment.address) / segment.size, width = Math.max(.8, 1000 * bytes / segment.size);
      const free = state === "inactive";
      shape(svg, "rect", {class: free ? "free" : "box", x, width, y: 1, height: 16, "data-block": address,
                          ...(free ? {} : {fill: colour(stack), "fill-opacity": state === "active_allocated" ? 1 : .4})});
    }
    place.append(element("div", {class: "row", "data-segment": segment.address}, element("span", {title: `${hex(segment.address)}: ${text}`}, text), bar));
  }
  if (shown.length < sorted.length) {
    const more = element("button", {}, `Show ${sorted.length - shown.length} more segments`);
    more.onclick = () => { allSegments = true; drawSegments(); };
    place.append(more);
  }
  if (sorted.length === 0) place.append(element("p", {class: "note"}, "The allocator holds no memory."));
}

function drawSites() {
  const head = element("tr", {}, ...["now", "blocks", "at the peak"].map((name) => element("th", {class: "number"}, name)), element("th", {}, "allocated at"));
  const rows = device.sites.slice(0, MOST_SITES).map((site) => {
    const row = element("tr", {"data-stack": site.stack}, ...[size(site.now), site.count, size(site.at_peak)].map((value) =>
      element("td", {class: "number"}, value)), element("td", {}, site.label));
    row.onclick = () => show("Line of code", [["holds now", size(site.now)], ["blocks", String(site.count)], ["held at the peak", size(site.at_peak)]],
                             [["A stack of it", site.stack]]);
    return row;
  });
  const rest = device.sites.length - rows.length;
  find("sites").replaceChildren(element("thead", {}, head), element("tbody", {}, ...rows),
    ...(rest > 0 ? [element("caption", {}, `${rest} lines that hold less are not in this table.`)] : []));
}

// ---- details ----
function frameList(stack) {
  const frames = report.stacks[stack].frames.map((number) => report.frames[number]);
  if (frames.length === 0) return element("p", {class: "note"}, stackLabel(0));
  const isPython = (file) => /(\.py|>)$/.test(file);
  // C++ frames of a stack with Python in it are shown on request.
  return element("ol", frames.some((frame) => isPython(frame[1])) ? {class: "python"} : {}, ...frames.map(([name, file, line]) =>
    element("li", isPython(file) ? {} : {class: "native"}, element("code", {}, name), file === "??" ? "" : ` ${file}:${line}`)));
}
function show(title, entries, stacks) {
  find("details").replaceChildren(element("h2", {}, title), element("dl", {}, ...entries.flatMap(fact)),
    ...stacks.flatMap(([name, stack]) => [element("h2", {}, name), frameList(stack)]));
}
function select(box) {
  document.querySelectorAll(".selected").forEach((old) => old.classList.remove("selected"));
  if (box) box.classList.add("selected");
}
function showBlock(address) {
  for (const segment of device.segments) {
    const block = segment.blocks.find((candidate) => candidate[0] === address);
    if (!block) continue;
    const [, bytes, requested, state, stack] = block;
    select(document.querySelector(`[data-block="${address}"]`));
    show(state === "inactive" ? "Free block" : "Block", [
      ["address", hex(address)], ["state", state.replaceAll("_", " ")], ["size", `${size(bytes)} (${bytes} B)`],
      ...(state === "inactive" ? [] : [["requested", `${requested} B`]]),
      ["in the segment", `${hex(segment.address)}, ${size(segment.size)}, ${segment.kind}, stream ${segment.stream}`],
    ], state === "inactive" ? [["The segment was allocated by", segment.stack]] : [["Allocated by", stack]]);
  }
}
function showAllocation(number) {
  const allocation = device.allocations[number];
  if (!allocation) return;
  const [address, bytes, begin, end, stack, freedBy] = allocation;
  select(document.querySelector(`[data-allocation="${number}"]`));
  show("Allocation", [
    ["address", hex(address)], ["requested", `${size(bytes)} (${bytes} B)`], ["begins", when(begin, "before the trace")],
    ["ends", when(end, "still alive")],
  ], [["Allocated by", stack], ...(freedBy && freedBy !== stack ? [["Freed by", freedBy]] : [])]);
}
function showEvent(event) {
  const oom = device.ooms.find((candidate) => candidate[0] === event);
  if (oom) return show("Out of memory", [["at", when(event)], ["wanted", size(oom[1])], ["free on the device", size(oom[2])]], [["Wanted by", oom[3]]]);
  const number = device.allocations.findIndex((allocation) => allocation[2] === event || allocation[3] === event);
  if (number >= 0) showAllocation(number);
}

// ---- pointer and address ----
const boxes = (target) => target.closest("[data-allocation], [data-block]");
document.addEventListener("click", (click) => {
  const box = boxes(click.target);
  if (!box) return;
  if (box.dataset.allocation) showAllocation(Number(box.dataset.allocation)); else showBlock(Number(box.dataset.block));
});
document.addEventListener("mousemove", (pointer) => {
  const tip = find("tip"), box = boxes(pointer.target);
  tip.hidden = !box;
  if (!box) return;
  if (box.dataset.allocation) {
    const [, bytes, begin, end, stack] = device.allocations[Number(box.dataset.allocation)];
    tip.textContent = `${size(bytes)}\n${stackLabel(stack)}\n${when(begin, "before the trace")} to ${when(end, "the end")}`;
  } else {
    const address = Number(box.dataset.block);
    const home = Number(box.closest("[data-segment]").dataset.segment);
    const block = device.segments.find((segment) => segment.address === home).blocks.find((candidate) => candidate[0] === address);
    tip.textContent = block[3] === "inactive" ? `${size(block[1])} free` : `${size(block[1])}, ${block[2]} B requested\n${stackLabel(block[4])}`;
  }
  tip.style.left = `${Math.min(pointer.clientX + 14, innerWidth - tip.offsetWidth - 8)}px`;
  tip.style.top = `${Math.min(pointer.clientY + 14, innerHeight - tip.offsetHeight - 8)}px`;
});
for (const choice of document.querySelectorAll("[name=axis]"))
  choice.onchange = () => { byTime = choice.value === "time"; drawTimeline(); drawAllocations(); };

function draw() {
  drawDevices(); drawTotals(); drawTimeline(); drawAllocations(); drawSegments(); drawSites();
}
function follow() {
  const wanted = new URLSearchParams(location.hash.slice(1));
  device = report.devices.find((each) => String(each.index) === wanted.get("device")) ?? report.devices[0];
  if (!device) return find("charts").replaceChildren(element("p", {}, "The snapshot is empty: no device had memory, and no event was recorded."));
  draw();
  if (wanted.has("block")) showBlock(Number(wanted.get("block")));
  if (wanted.has("allocation")) showAllocation(Number(wanted.get("allocation")));
}
addEventListener("hashchange", follow);
let resized = 0;
addEventListener("resize", () => { clearTimeout(resized); resized = setTimeout(() => device && draw(), 100); });
follow();
