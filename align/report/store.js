// Where completions come from, how they are searched, and how long lists are shown a page at a time.

const PAGE = 24; // cards that are drawn at once
const PATIENCE = 120; // milliseconds without a key before a search begins

/** gzip in base64 → the value. Nothing is fetched: the browser's own decompression reads from memory. */
async function unpack(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

/** One stage's completions, or the answers of all evaluations; unpacked once, when first looked at. */
class Source {
  constructor(element) {
    this.element = element;
    this.name = element.dataset.name;
  }

  load() {
    this.loading ??= unpack(this.element.textContent).then((value) => {
      this.element.textContent = ""; // the packed text is not needed twice
      Object.assign(this, value);
      if (this.groups) this.index();
    });
    return this.loading;
  }

  index() {
    this.steps = [...new Set(this.groups.map((group) => group.step))];
    this.rows = [];
    this.byPrompt = new Map();
    this.groups.forEach((group, at) => {
      group.at = at;
      const key = JSON.stringify([group.prompt_index, group.prompt]);
      if (!this.byPrompt.has(key)) this.byPrompt.set(key, []);
      group.alike = this.byPrompt.get(key);
      group.alike.push(group);
      for (const row of group.rows) {
        row.group = group;
        this.rows.push(row);
      }
    });
  }

  /** The completions that hold a text, or whose prompt does; case does not matter. */
  find(needle) {
    const lower = needle.toLowerCase();
    for (const group of this.groups) group.lower ??= group.prompt.toLowerCase();
    return this.rows.filter((row) => {
      row.lower ??= row.completion.toLowerCase();
      return row.lower.includes(lower) || row.group.lower.includes(lower);
    });
  }
}

/** Those with a reward, the highest (sign 1) or lowest (−1) first. */
const byReward = (rows, sign) =>
  rows.filter((row) => isNumber(row.reward)).sort((a, b) => sign * (b.reward - a.reward));

/** Texts that were written more than once, the most frequent first: [{text, rows}]. */
function repeated(rows) {
  const found = new Map();
  for (const row of rows) {
    const text = row.completion.trim();
    if (!found.has(text)) found.set(text, []);
    found.get(text).push(row);
  }
  return [...found].filter(([, same]) => same.length > 1).sort((a, b) => b[1].length - a[1].length);
}

/** Draws the first items into a box and a button for more: a list of thousands costs what it shows. */
function paged(view, className, items, draw) {
  const box = make("div", className);
  const more = button("", "Show more", () => extend());
  let shown = 0;
  function extend() {
    const next = items.slice(shown, shown + PAGE).map(draw);
    for (const element of next) element.dataset.item = "";
    box.append(...next);
    shown += next.length;
    more.textContent = `Show ${Math.min(PAGE, items.length - shown)} more of ${items.length.toLocaleString("en")}`;
    more.hidden = shown >= items.length;
    reachable(box);
  }
  more.classList.add("more");
  view.append(box, more);
  extend();
}

/** What scrolls must be reachable by keyboard. */
function reachable(box) {
  const long = [...box.querySelectorAll(".card .text")].filter((text) => text.scrollHeight > text.clientHeight);
  for (const text of long) text.tabIndex = 0;
}

/** Moves the mark on a list's items by one; the mark comes into sight. */
function moveMark(view, by) {
  const items = [...view.querySelectorAll("[data-item]")];
  if (!items.length) return;
  const at = items.findIndex((item) => item.classList.contains("chosen"));
  const next = Math.max(0, Math.min(items.length - 1, at + by));
  if (at >= 0) items[at].classList.remove("chosen");
  items[next].classList.add("chosen");
  items[next].scrollIntoView({ block: "nearest" });
}

/** Calls back once the keys have rested. */
function debounced(action) {
  let timer = 0;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(action, PATIENCE);
  };
}
