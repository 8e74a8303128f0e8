// What changed between two models on the same problems: gained, lost, both right, neither.

const FATES = [
  ["gained", "Gained", "Right after, not before"],
  ["lost", "Lost", "Right before, not after"],
  ["both", "Both right", "Right before and after"],
  ["neither", "Neither", "Wrong before and after"],
];

/** The share of a model's answers to a problem that are right, null where none was judged. */
function rightness(answers, score) {
  const judged = answers.map((answer) => answer[score]).filter(isNumber);
  return judged.length ? judged.reduce((sum, value) => sum + value) / judged.length : null;
}

function fate(before, after) {
  if (before === null || after === null) return null;
  if (after !== before) return after > before ? "gained" : "lost";
  return after > 0 ? "both" : "neither";
}

class Changed {
  constructor() {
    this.bar = make("div", "bar");
    this.state = make("p", "state");
    this.state.setAttribute("aria-live", "polite");
    this.view = make("div");
    this.fate = "gained";
    this.score = "strict";
    this.needle = "";
  }

  open(source) {
    if (this.sets === source.sets) return this.draw();
    this.sets = source.sets;
    this.choose(0);
  }

  choose(at) {
    this.set = this.sets[at];
    this.before = this.set.start;
    this.after = this.set.models.length - 1;
    if (this.before === this.after) this.before = 0;
    const scores = ["strict", "lenient"].filter((score) => this.set.problems.some((p) => p.answers.some((a) => a.some((x) => isNumber(x[score])))));
    this.score = scores.includes(this.score) ? this.score : scores[0] || "strict";
    const models = this.set.models.map((name, i) => [i, name]);
    const data = choice(this.sets.map((set, i) => [i, set.data]), (value) => this.choose(Number(value)));
    data.value = at;
    const before = choice(models, (value) => { this.before = Number(value); this.draw(); });
    before.value = this.before;
    const after = choice(models, (value) => { this.after = Number(value); this.draw(); });
    after.value = this.after;
    const score = choice(scores.map((name) => [name, name]), (value) => { this.score = value; this.draw(); });
    score.value = this.score;
    this.search = make("input");
    this.search.type = "search";
    this.search.placeholder = "in prompts and answers";
    this.search.value = this.needle;
    this.search.addEventListener("input", debounced(() => this.find()));
    this.fates = FATES.map(([name, , title]) => button("", title, () => { this.fate = name; this.draw(); }));
    const grow = field("Search", this.search);
    grow.classList.add("grow");
    const shown = field("Problems", ...this.fates);
    shown.classList.add("tabs");
    const halves = [field("Before", before), field("After", after)];
    for (const half of halves) half.classList.add("half");
    this.bar.replaceChildren(field("Problems of", data), ...halves, field("Score", score), shown, grow);
    this.draw();
  }

  find() {
    this.needle = this.search.value.toLowerCase();
    this.draw();
  }

  hit(problem) {
    const texts = () => [problem.prompt, ...[this.before, this.after].flatMap((i) => problem.answers[i].map((a) => a.completion))];
    return !this.needle || texts().some((text) => text.toLowerCase().includes(this.needle));
  }

  draw() {
    const { set, before, after, score } = this;
    const sorted = { gained: [], lost: [], both: [], neither: [] };
    for (const problem of set.problems) {
      const name = fate(rightness(problem.answers[before], score), rightness(problem.answers[after], score));
      if (name && this.hit(problem)) sorted[name].push(problem);
    }
    FATES.forEach(([name, words], i) => {
      this.fates[i].replaceChildren(`${words} `, make("b", name, sorted[name].length.toLocaleString("en")));
      this.fates[i].setAttribute("aria-pressed", name === this.fate);
    });
    const total = Object.values(sorted).reduce((sum, list) => sum + list.length, 0);
    const found = this.needle ? `${total.toLocaleString("en")} of ${set.problems.length.toLocaleString("en")} problems found. ` : "";
    this.state.textContent = `${found}From ${set.models[before]} to ${set.models[after]}, ${score}: ${sorted.gained.length} gained, ${sorted.lost.length} lost, ${sorted.both.length} both right, ${sorted.neither.length} neither.`;
    this.view.replaceChildren();
    paged(this.view, "problems", sorted[this.fate], (problem) => this.problem(problem));
  }

  problem(problem) {
    const box = make("section", "problem");
    const sides = make("div", "sides");
    for (const at of [this.before, this.after]) {
      const side = make("div");
      side.append(make("h4", "", this.set.models[at]));
      for (const answer of problem.answers[at]) side.append(card({ ...answer, correct: answer[this.score] }, this.needle));
      sides.append(side);
    }
    box.append(question({ ...problem, prompt_index: problem.row }, this.needle), sides);
    return box;
  }

  key(name) {
    const by = { j: 1, k: -1, ArrowRight: 1, ArrowLeft: -1 }[name];
    if (by) moveMark(this.view, by);
    return Boolean(by);
  }
}
