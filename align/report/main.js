// Puts the browser together: which source is shown, the keyboard, the help.

class Completions {
  constructor(root, sources) {
    this.root = root;
    this.sources = sources;
    this.parts = { groups: new Browser(), sets: new Changed() };
    const words = (source) => source.name || "evaluations: what changed";
    this.which = choice(sources.map((source, i) => [i, words(source)]), (value) => this.open(sources[value]));
    this.help = this.makeHelp();
    const top = make("div", "which");
    top.append(field("Completions of", this.which), button("?", "Keys (?)", () => this.help.showModal()));
    this.place = make("div");
    root.append(top, this.place, this.help);
  }

  async open(source) {
    this.which.value = this.sources.indexOf(source);
    await source.load();
    this.part = source.groups ? this.parts.groups : this.parts.sets;
    this.place.replaceChildren(this.part.bar, this.part.state, this.part.view);
    this.part.open(source);
  }

  makeHelp() {
    const dialog = make("dialog", "help");
    const list = make("dl");
    for (const [keys, does] of HELP) list.append(make("dt", "", keys), make("dd", "", does));
    dialog.append(make("h3", "", "Keys"), list, button("Close", "Close", () => dialog.close()));
    return dialog;
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || !this.part || this.help.open) return;
    const { search } = this.part;
    if (event.key === "Escape" && this.part.needle) {
      search.value = "";
      search.dispatchEvent(new Event("input"));
      search.blur();
    } else if (event.target.closest("input, select, summary, pre, button") && (event.key === "Enter" || !event.target.closest("button"))) return;
    else if (event.key === "/") search.focus();
    else if (event.key === "?") this.help.showModal();
    else if (!this.part.key(event.key, event.shiftKey)) return;
    event.preventDefault();
  }

  /** Keys are for the browser where it has the focus or is in sight. */
  get near() {
    const { top, bottom } = this.root.getBoundingClientRect();
    return bottom > 0 && top < innerHeight;
  }
}

const root = document.querySelector(".browser");
if (root) {
  const completions = new Completions(root, [...document.querySelectorAll("script.source")].map((element) => new Source(element)));
  document.addEventListener("keydown", (event) => {
    if (root.contains(event.target) || (event.target === document.body && completions.near)) completions.key(event);
  });
  const { sources } = completions;
  completions.open(sources.findLast((source) => source.name) || sources[0]).then(
    () => performance.mark("ready"),
    (error) => root.append(make("p", "note", `This browser cannot unpack the completions (${error}).`)),
  );
}
