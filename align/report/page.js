// The browser of completions: which of them are shown; cards.js, which stands before this, says how.

function button(text, title, action) {
  const element = make("button", "", text);
  element.type = "button";
  element.title = title;
  element.setAttribute("aria-label", title);
  element.addEventListener("click", action);
  return element;
}

function field(label, ...controls) {
  const box = make("div", "field");
  const line = make("div");
  line.append(...controls);
  for (const control of controls) if (control.tagName !== "BUTTON") control.setAttribute("aria-label", label);
  box.append(make("span", "", label), line);
  return box;
}

class Browser {
  constructor(root) {
    this.root = root;
    this.all = JSON.parse(document.getElementById(root.dataset.samples).textContent).groups;
    this.groups = this.all; // those the search leaves
    this.at = 0;
    this.needle = "";
    this.chosen = null; // the best or worst row, once asked for
    this.comparing = false; // first and last step side by side, instead of one prompt
    this.build();
    root.hidden = false;
    this.go(this.all.findIndex((group) => group.step === this.all[this.all.length - 1].step));
  }

  build() {
    this.step = make("select");
    this.step.addEventListener("change", () => this.goStep(Number(this.step.value)));
    this.prompt = make("select");
    this.prompt.addEventListener("change", () => this.go(Number(this.prompt.value)));
    this.order = make("select");
    for (const name of ["as sampled", "best first", "worst first"]) this.order.append(new Option(name));
    this.order.addEventListener("change", () => this.draw());
    this.search = make("input");
    this.search.type = "search";
    this.search.placeholder = "in prompts and completions";
    this.search.addEventListener("input", () => this.filter());
    this.buttons = {
      earlier: button("‹", "Earlier step (Shift + left arrow)", () => this.moveStep(-1)),
      later: button("›", "Later step (Shift + right arrow)", () => this.moveStep(1)),
      previous: button("‹", "Previous prompt (left arrow)", () => this.move(-1)),
      next: button("›", "Next prompt (right arrow)", () => this.move(1)),
      best: button("Best", "Highest reward of this step (B)", () => this.extreme(1)),
      worst: button("Worst", "Lowest reward of this step (W)", () => this.extreme(-1)),
      compare: button("First | last", "Best and worst of the first and the last step, side by side (C)", () => this.compare()),
    };
    const { earlier, later, previous, next, best, worst, compare } = this.buttons;
    const bar = make("div", "bar");
    const grow = field("Search", this.search);
    grow.classList.add("grow");
    bar.append(field("Step", earlier, this.step, later), field("Prompt", previous, this.prompt, next));
    const halves = [field("Of this step", best, worst), field("Steps", compare)];
    // With one completion a prompt there is nothing to put in order.
    if (this.all.some((group) => group.rows.length > 1)) halves.push(field("Order", this.order));
    for (const half of halves) half.classList.add("half");
    bar.append(...halves, grow);
    this.state = make("p", "state");
    this.state.setAttribute("aria-live", "polite");
    this.view = make("div");
    const keys = make("p", "keys");
    const key = (name, text) => keys.append(make("kbd", "", name), ` ${text}   `);
    key("←", ""); key("→", "prompt"); key("Shift ←", ""); key("Shift →", "step");
    key("B", "best"); key("W", "worst"); key("C", "first and last step"); key("/", "search"); key("Esc", "clear");
    this.root.append(bar, this.state, this.view, keys);
  }

  get group() { return this.groups[this.at]; }
  get steps() { return [...new Set(this.groups.map((group) => group.step))]; }

  filter() {
    this.needle = this.search.value.toLowerCase();
    this.chosen = null;
    const hit = (text) => String(text || "").toLowerCase().includes(this.needle);
    this.groups = this.needle
      ? this.all.filter((group) => hit(group.prompt) || group.rows.some((row) => hit(row.completion)))
      : this.all;
    this.go(Math.max(0, this.groups.indexOf(this.shown)));
  }

  move(by) { this.go(this.at + by); }
  moveStep(by) {
    if (!this.group) return;
    const steps = this.steps;
    this.goStep(steps[steps.indexOf(this.group.step) + by]);
  }
  goStep(step) {
    const first = this.groups.findIndex((group) => group.step === step);
    if (first >= 0) this.go(first);
  }
  go(at, chosen = null) {
    if (this.groups.length && (at < 0 || at >= this.groups.length)) return;
    this.at = at;
    this.chosen = chosen;
    this.comparing = false;
    this.draw();
  }

  /** The completion of a step with the highest (sign 1) or lowest (−1) reward, and its group's place. */
  find(step, sign) {
    let best = null;
    this.groups.forEach((group, at) => {
      if (group.step !== step) return;
      for (const row of group.rows) {
        if (isNumber(row.reward) && (!best || sign * (row.reward - best.row.reward) > 0)) best = { at, row };
      }
    });
    return best;
  }

  extreme(sign) {
    const best = this.group && this.find(this.group.step, sign);
    if (!best) return;
    this.go(best.at, best.row);
    this.view.querySelector(".chosen").scrollIntoView({ block: "nearest" });
  }

  compare() {
    this.comparing = !this.comparing;
    this.draw();
  }

  draw() {
    const { group, buttons } = this;
    const steps = this.steps;
    this.step.replaceChildren(...steps.map((step) => new Option(step, step)));
    for (const control of [this.step, this.prompt, this.order]) control.disabled = !group;
    // Not `disabled`: a button that goes dead under the finger would take the keyboard's focus with it.
    const idle = (names, is) => names.forEach((name) => buttons[name].setAttribute("aria-disabled", is));
    idle(Object.keys(buttons), !group);
    this.view.replaceChildren();
    if (!group) {
      this.prompt.replaceChildren();
      this.state.textContent = "Nothing found.";
      return;
    }
    this.step.value = group.step;
    const inStep = this.groups.map((other, at) => [other, at]).filter(([other]) => other.step === group.step);
    this.prompt.replaceChildren(...inStep.map(([other, at], i) => new Option(this.name(other, i), at)));
    this.prompt.value = this.at;
    idle(["previous"], this.at === 0);
    idle(["next"], this.at === this.groups.length - 1);
    idle(["earlier"], group.step === steps[0]);
    idle(["later"], group.step === steps[steps.length - 1]);
    const place = inStep.findIndex(([, at]) => at === this.at) + 1;
    const found = this.needle ? `${this.groups.length} of ${this.all.length} prompts found. ` : "";
    this.state.textContent = `${found}Step ${group.step}, prompt ${place} of ${inStep.length}.`;
    this.shown = group; // where a search that found nothing returns to
    buttons.compare.setAttribute("aria-pressed", this.comparing);
    if (this.comparing) this.drawEnds(steps);
    else this.drawGroup(group);
    // What scrolls must be reachable by keyboard.
    for (const box of this.view.querySelectorAll(".card .text")) if (box.scrollHeight > box.clientHeight) box.tabIndex = 0;
  }

  name(group, i) {
    const judged = group.rows.filter((row) => isNumber(row.correct));
    const right = judged.filter((row) => row.correct >= 1).length;
    if (judged.length) return `${i + 1}: ${right} of ${judged.length} right`;
    const rewards = group.rows.map((row) => row.reward).filter(isNumber);
    if (!rewards.length) return `${i + 1}`;
    return `${i + 1}: reward ${show(rewards.reduce((sum, reward) => sum + reward) / rewards.length)}`;
  }

  /** Best and worst of the first and the last step, of those that the search leaves. */
  drawEnds(steps) {
    const ends = [...new Set([steps[0], steps[steps.length - 1]])];
    this.state.textContent = `Best and worst by reward of ${ends.map((step) => `step ${step}`).join(" and ")}.`;
    const grid = make("div", "extremes");
    for (const [sign, name] of [[1, "Best"], [-1, "Worst"]]) {
      for (const step of ends) {
        const found = this.find(step, sign);
        if (!found) continue;
        const cell = make("section");
        cell.append(make("h4", "", `${name} of step ${step}`), question(this.groups[found.at], this.needle));
        cell.append(card(found.row, this.needle, false));
        grid.append(cell);
      }
    }
    this.view.append(grid);
  }

  drawGroup(group) {
    const sign = { "best first": -1, "worst first": 1 }[this.order.value] || 0;
    const rows = sign ? [...group.rows].sort((a, b) => sign * (rewardOf(a) - rewardOf(b) || 0)) : group.rows;
    const cards = make("div", "group");
    for (const row of rows) cards.append(card(row, this.needle, row === this.chosen));
    this.view.append(question(group, this.needle), cards);
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape" && this.needle) { this.search.value = ""; this.filter(); return; }
    if (event.target.closest("input, select, summary, pre")) return;
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const actions = { b: () => this.extreme(1), w: () => this.extreme(-1), c: () => this.compare(), "/": () => this.search.focus() };
    const action = by ? () => (event.shiftKey ? this.moveStep(by) : this.move(by)) : actions[event.key.toLowerCase()];
    if (!action) return;
    event.preventDefault();
    action();
  }
}

const browsers = [...document.querySelectorAll(".browser")].map((root) => new Browser(root));
// Keys go to the browser that has the focus; where none has it, to the one that fills most of the screen.
const seen = ({ root }) => {
  const { top, bottom } = root.getBoundingClientRect();
  return Math.min(bottom, innerHeight) - Math.max(top, 0);
};
document.addEventListener("keydown", (event) => {
  const focused = browsers.find(({ root }) => root.contains(event.target));
  const nearest = [...browsers].sort((a, b) => seen(b) - seen(a))[0];
  if (focused) focused.key(event);
  else if (event.target === document.body && nearest && seen(nearest) > 0) nearest.key(event);
});
