// What a completion looks like. Model output is hostile: it reaches the page by textContent alone.
"use strict";

const make = (tag, className, text) => {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
};
const isNumber = (value) => typeof value === "number";
const isThere = (value) => value !== null && value !== undefined;
const show = (value) => {
  if (!isThere(value)) return "–";
  if (!isNumber(value)) return String(value);
  if (Number.isInteger(value)) return String(value).replace("-", "−");
  return String(Number(value.toPrecision(3))).replace("-", "−");
};
const rewardOf = (row) => (isNumber(row.reward) ? row.reward : -Infinity);

/** Appends text, each occurrence of needle marked. */
function appendMarked(parent, text, needle) {
  const lower = needle ? text.toLowerCase() : "";
  // Lower-casing can change a text's length (İ); then positions do not carry over and nothing is marked.
  if (!needle || lower.length !== text.length) return parent.append(text);
  let from = 0;
  for (let at = lower.indexOf(needle); at >= 0; at = lower.indexOf(needle, from)) {
    parent.append(text.slice(from, at), make("mark", "", text.slice(at, at + needle.length)));
    from = at + needle.length;
  }
  parent.append(text.slice(from));
}

/** A completion with its <think> and <answer> parts told apart. */
function completion(text, needle) {
  const box = make("div", "text");
  box.dir = "auto";
  let inside = "";
  for (const piece of text.split(/(<\/?(?:think|answer)>)/)) {
    const tag = /^<(\/?)(think|answer)>$/.exec(piece);
    const part = make("span", tag ? "tag" : inside);
    appendMarked(part, piece, needle);
    box.append(part);
    if (tag) inside = tag[1] ? "" : tag[2];
  }
  if (!text) box.append(make("span", "tag", "(empty)"));
  return box;
}

/** One completion with its figures. place: says where it is from, instead of the sample's number. */
function card(row, needle, place) {
  const box = make("article", "card");
  const head = make("header");
  const verdict = { 1: ["✓ right", "right-answer"], 0: ["✗ wrong", "wrong-answer"] }[row.correct];
  const who = make("span", "label");
  const from = place || (isThere(row.sample) ? `sample ${show(row.sample)}` : "");
  if (from) who.append(make("span", "", from));
  if (verdict) who.append(make("span", verdict[1], verdict[0]));
  head.append(who);
  if (isThere(row.reward)) {
    const reward = make("span", "label", "reward ");
    reward.append(make("span", "reward", show(row.reward)));
    head.append(reward);
  }
  const figures = make("dl", "figures");
  // What a stage does not measure takes no place.
  const figure = (name, value, alert) => {
    if (!isThere(value)) return;
    const pair = make("div", alert ? "alert" : "");
    pair.append(make("dt", "", name), make("dd", "", show(value)));
    figures.append(pair);
  };
  for (const [name, value] of Object.entries(row.parts || {})) figure(name, value);
  figure("advantage", isNumber(row.advantage) && row.advantage > 0 ? `+${show(row.advantage)}` : row.advantage);
  figure("length", row.length);
  if (row.truncated) figure("truncated", "yes", true);
  if (row.outcome && row.outcome !== "ok") figure("outcome", row.outcome, true);
  if (isThere(row.kept)) figure(row.kept ? "kept" : "rejected", row.kept ? "yes" : row.reason || "yes", !row.kept);
  box.append(head);
  if (figures.childElementCount) box.append(figures);
  box.append(completion(row.completion, needle));
  return box;
}

/** A group's prompt, and its solution where it has one. */
function question(group, needle) {
  const prompt = make("div", "prompt");
  const text = make("div", "text");
  text.dir = "auto";
  appendMarked(text, group.prompt, needle);
  const row = isThere(group.prompt_index) ? `, data row ${show(group.prompt_index)}` : "";
  prompt.append(make("div", "label", `Prompt${row}`), text);
  if (isThere(group.solution)) {
    const gold = make("div", "gold");
    gold.append(make("span", "label", "Solution "), make("span", "text", group.solution));
    prompt.append(gold);
  }
  return prompt;
}

function button(text, title, action) {
  const element = make("button", "", text);
  element.type = "button";
  element.title = title;
  element.setAttribute("aria-label", title);
  element.addEventListener("click", action);
  return element;
}

/** A labelled group of controls in a bar. */
function field(label, ...controls) {
  const box = make("div", "field");
  const line = make("div");
  line.append(...controls);
  for (const control of controls) if (control.tagName !== "BUTTON") control.setAttribute("aria-label", label);
  box.append(make("span", "", label), line);
  return box;
}

/** A select of [value, words] pairs that calls back with the chosen value. */
function choice(pairs, action) {
  const select = make("select");
  select.append(...pairs.map(([value, words]) => new Option(words, value)));
  select.addEventListener("change", () => action(select.value));
  return select;
}
