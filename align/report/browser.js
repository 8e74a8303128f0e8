// The browser of completions: by stage, step and prompt, best and worst, most repeated, found.

const VIEWS = [
  ["prompt", "Prompt", "All completions of one prompt at one step (P)", "p"],
  ["best", "Best", "Highest rewards (B)", "b"],
  ["worst", "Worst", "Lowest rewards (W)", "w"],
  ["repeated", "Most repeated", "Texts written more than once (R)", "r"],
  ["ends", "First | last", "Best and worst of the first and the last step, side by side (C)", "c"],
  ["found", "Found", "What the search has found (F)", "f"],
];
const HELP = [
  ["← → or k j", "previous, next prompt; in a list, the mark"],
  ["Shift ← →", "earlier, later step"],
  ["Enter", "open the prompt of the marked completion"],
  ["P B W R C F", "prompt, best, worst, most repeated, first and last step, found"],
  ["/", "search"],
  ["Esc", "clear the search"],
  ["?", "this help"],
];

class Browser {
  constructor() {
    this.bar = make("div", "bar");
    this.state = make("p", "state");
    this.state.setAttribute("aria-live", "polite");
    this.view = make("div");
    this.needle = "";
    this.found = [];
    this.build();
  }

  build() {
    this.step = choice([], (step) => this.goStep(Number(step)));
    this.prompt = choice([], (at) => this.go(Number(at)));
    this.order = choice([[1, "best first"], [-1, "worst first"], [0, "as sampled"]], () => this.draw());
    this.scope = choice([["step", "this step"], ["all", "all steps"]], () => this.draw());
    this.search = make("input");
    this.search.type = "search";
    this.search.placeholder = "in prompts and completions";
    this.search.addEventListener("input", debounced(() => this.filter()));
    this.moves = {
      earlier: button("‹", "Earlier step (Shift + left arrow)", () => this.moveStep(-1)),
      later: button("›", "Later step (Shift + right arrow)", () => this.moveStep(1)),
      previous: button("‹", "Previous prompt (left arrow)", () => this.go(this.at - 1)),
      next: button("›", "Next prompt (right arrow)", () => this.go(this.at + 1)),
    };
    this.tabs = VIEWS.map(([name, words, title]) => button(words, title, () => this.show(name)));
    const { earlier, later, previous, next } = this.moves;
    const tabs = field("Show", ...this.tabs);
    tabs.classList.add("tabs");
    const halves = [field("Order", this.order), field("Lists are of", this.scope)];
    for (const half of halves) half.classList.add("half");
    const grow = field("Search", this.search);
    grow.classList.add("grow");
    this.bar.append(tabs, field("Step", earlier, this.step, later), field("Prompt", previous, this.prompt, next), ...halves, grow);
  }

  open(source) {
    if (this.source !== source) {
      this.source = source;
      this.step.replaceChildren(...source.steps.map((step) => new Option(step, step)));
      this.at = source.groups.findIndex((group) => group.step === source.steps.at(-1));
      this.mode = "prompt";
      this.found = this.needle ? source.find(this.needle) : [];
    }
    this.draw();
  }

  get group() { return this.source.groups[this.at]; }

  filter() {
    this.needle = this.search.value.toLowerCase();
    this.found = this.needle ? this.source.find(this.needle) : [];
    this.show(this.needle ? "found" : "prompt");
  }

  show(mode) {
    if (mode === "found" && !this.needle) return;
    this.mode = mode;
    this.draw();
  }

  go(at) {
    if (at < 0 || at >= this.source.groups.length) return;
    this.at = at;
    this.show("prompt");
  }

  goStep(step) {
    const first = this.source.groups.findIndex((group) => group.step === step);
    if (first < 0) return;
    this.at = first;
    this.draw(); // of a list the step changes, and the list stays
  }

  moveStep(by) { this.goStep(this.source.steps[this.source.steps.indexOf(this.group.step) + by]); }

  draw() {
    const { group, source } = this;
    const inStep = source.groups.filter((other) => other.step === group.step);
    this.step.value = group.step;
    this.prompt.replaceChildren(...inStep.map((other, i) => new Option(this.name(other, i), other.at)));
    this.prompt.value = group.at;
    // Not `disabled`: a button that goes dead under the finger would take the keyboard's focus with it.
    const idle = (element, is) => element.setAttribute("aria-disabled", is);
    idle(this.moves.previous, this.at === 0);
    idle(this.moves.next, this.at === source.groups.length - 1);
    idle(this.moves.earlier, group.step === source.steps[0]);
    idle(this.moves.later, group.step === source.steps.at(-1));
    VIEWS.forEach(([name], i) => this.tabs[i].setAttribute("aria-pressed", name === this.mode));
    idle(this.tabs.at(-1), !this.needle);
    this.tabs.at(-1).textContent = this.needle ? `Found ${this.found.length.toLocaleString("en")}` : "Found";
    this.view.replaceChildren();
    const all = this.mode === "ends" || this.scope.value === "all";
    const rows = all ? source.rows : inStep.flatMap((other) => other.rows);
    const where = all ? "all steps" : `step ${group.step}`;
    ({
      prompt: () => this.drawGroup(group, inStep),
      best: () => this.drawRows(byReward(rows, 1), `highest reward of ${where}`),
      worst: () => this.drawRows(byReward(rows, -1), `lowest reward of ${where}`),
      repeated: () => this.drawRepeated(rows, where),
      ends: () => this.drawEnds(),
      found: () => this.drawFound(),
    })[this.mode]();
  }

  name(group, i) {
    const judged = group.rows.filter((row) => isNumber(row.correct));
    const right = judged.filter((row) => row.correct >= 1).length;
    if (judged.length) return `${i + 1}: ${right} of ${judged.length} right`;
    const rewards = group.rows.map((row) => row.reward).filter(isNumber);
    if (!rewards.length) return `${i + 1}`;
    return `${i + 1}: reward ${show(rewards.reduce((sum, reward) => sum + reward) / rewards.length)}`;
  }

  say(text) { this.state.textContent = text; }

  drawGroup(group, inStep) {
    const other = group.alike.filter((same) => same !== group);
    this.say(`Step ${group.step}, prompt ${inStep.indexOf(group) + 1} of ${inStep.length}.`);
    const asked = question(group, this.needle);
    if (other.length) {
      const line = make("p", "alike", "The same prompt at ");
      for (const same of other.slice(0, 12)) line.append(button(`step ${show(same.step)}`, `The same prompt at step ${show(same.step)}`, () => this.go(same.at)));
      asked.append(line);
    }
    const sign = Number(this.order.value);
    const rows = sign ? [...group.rows].sort((a, b) => sign * (rewardOf(b) - rewardOf(a) || 0)) : group.rows;
    this.view.append(asked);
    paged(this.view, "group", rows, (row) => card(row, this.needle));
  }

  /** A completion in a list: where it is from, its prompt, and the way to its group. */
  listed(row) {
    const { group } = row;
    const box = card(row, this.needle, `step ${show(group.step)}`);
    const prompt = make("p", "asked");
    appendMarked(prompt, group.prompt, this.needle);
    box.querySelector(".text").before(prompt);
    const open = button("Open prompt", `Open the prompt at step ${show(group.step)}`, () => this.go(group.at));
    open.classList.add("open");
    box.append(open);
    return box;
  }

  drawRows(rows, what) {
    this.say(rows.length ? `${rows.length.toLocaleString("en")} completions, ${what} first.` : "No rewards here.");
    paged(this.view, "group", rows, (row) => this.listed(row));
  }

  drawFound() {
    const prompts = new Set(this.found.map((row) => row.group)).size;
    this.say(this.found.length
      ? `${this.found.length.toLocaleString("en")} of ${this.source.rows.length.toLocaleString("en")} completions found, in ${prompts.toLocaleString("en")} groups.`
      : "Nothing found.");
    paged(this.view, "group", this.found, (row) => this.listed(row));
  }

  drawRepeated(rows, where) {
    const found = repeated(rows);
    this.say(found.length
      ? `${found.length.toLocaleString("en")} texts were written more than once among the ${rows.length.toLocaleString("en")} completions of ${where}.`
      : `No two of the ${rows.length.toLocaleString("en")} completions of ${where} are alike.`);
    paged(this.view, "group", found, ([, same]) => {
      const box = this.listed(same[0]);
      const steps = same.map((row) => row.group.step);
      const [first, last] = [Math.min(...steps), Math.max(...steps)];
      const span = first === last ? `step ${first}` : `steps ${first} to ${last}`;
      const share = `${same.length.toLocaleString("en")} times, ${show((100 * same.length) / rows.length)} %, ${span}`;
      box.querySelector("header").before(make("p", "times", share));
      return box;
    });
  }

  /** Best and worst of the first and the last step. */
  drawEnds() {
    const ends = [...new Set([this.source.steps[0], this.source.steps.at(-1)])];
    this.say(`Best and worst by reward of ${ends.map((step) => `step ${step}`).join(" and ")}.`);
    const grid = make("div", "extremes");
    for (const [sign, name] of [[1, "Best"], [-1, "Worst"]]) {
      for (const step of ends) {
        const [row] = byReward(this.source.rows.filter((one) => one.group.step === step), sign);
        if (!row) continue;
        const cell = make("section");
        cell.append(make("h4", "", `${name} of step ${step}`), question(row.group, this.needle), card(row, this.needle));
        grid.append(cell);
      }
    }
    this.view.append(grid);
    reachable(grid);
  }

  key(name, shift) {
    const by = { ArrowLeft: -1, ArrowRight: 1, k: -1, j: 1 }[name];
    const view = VIEWS.find(([, , , key]) => key === name.toLowerCase());
    if (by && shift) this.moveStep(by);
    else if (by && this.mode === "prompt") this.go(this.at + by);
    else if (by) moveMark(this.view, by);
    else if (name === "Enter") this.view.querySelector(".chosen .open")?.click();
    else if (view) this.show(view[0]);
    else return false;
    return true;
  }
}
