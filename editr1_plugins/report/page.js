
"use strict";
// Everything from a record is set as text, never as HTML: what a judge or an instruction says cannot become code.
(() => {
  const STEP = 30; // cards added at a time: the page stays light however many edits there are
  const data = JSON.parse(document.getElementById("data").textContent);
  const form = document.getElementById("filters");
  const list = document.getElementById("list");
  const more = document.getElementById("more");
  const count = document.getElementById("count");
  const template = document.getElementById("card");
  const fields = [...form.elements].filter((field) => field.name);
  const categories = fields.filter((field) => field.dataset.category);
  const order = categories.map((field) => field.dataset.category);
  const ANSWERS = new Map([[true, ["met", "✓ yes"]], [false, ["unmet", "✗ no"]], [null, ["unjudged", "? not judged"]]]);
  const number = new Intl.NumberFormat("en");
  let shown = [];
  let drawn = 0;

  const element = (tag, name, text) => {
    const made = document.createElement(tag);
    if (name) made.className = name;
    if (text !== undefined) made.textContent = text;
    return made;
  };

  // ---- filter and sort

  const searchText = (entry) => {
    entry.text ??= [
      entry.label, entry.instruction, entry.failure, entry.trace, ...entry.flags,
      ...entry.verdicts.flatMap((verdict) => [verdict.question, verdict.reason]),
      ...entry.alarms.flatMap((alarm) => [alarm.guard, alarm.reason]),
    ].join("\n").toLowerCase();
    return entry.text;
  };

  const answersWith = (entry, category, wanted) => {
    const asked = entry.verdicts.filter((verdict) => verdict.category === category);
    if (wanted === "met") return asked.length > 0 && asked.every((verdict) => verdict.passed === true);
    return asked.some((verdict) => verdict.passed === (wanted === "unmet" ? false : null));
  };

  const outcomes = (entry) => (entry.score === null ? ["failed", `failed: ${entry.kind}`] : ["scored"]);

  const matcher = (state) => {
    const words = (state.q ?? "").toLowerCase().split(/\s+/).filter(Boolean);
    const bound = (text) => (text === undefined || text === "" || Number.isNaN(Number(text)) ? null : Number(text));
    const low = bound(state.min), high = bound(state.max);
    return (entry) =>
      (low === null || (entry.score !== null && entry.score >= low)) &&
      (high === null || (entry.score !== null && entry.score <= high)) &&
      (!state.outcome || outcomes(entry).includes(state.outcome)) &&
      (!state.flag || (state.flag === "*" ? entry.flags.length > 0 : entry.flags.includes(state.flag))) &&
      categories.every((field) => !state[field.name] || answersWith(entry, field.dataset.category, state[field.name])) &&
      words.every((word) => searchText(entry).includes(word));
  };

  // What has no such value goes last, whatever the direction; equal ones stay as recorded.
  const by = (value, direction) => (one, other) => {
    const a = value(one), b = value(other);
    if (a === null || b === null) return (a === null) - (b === null);
    return direction * (a - b);
  };
  const SORTS = {
    high: by((entry) => entry.score, -1),
    low: by((entry) => entry.score, 1),
    spread: by((entry) => entry.spread, -1),
    slow: by((entry) => entry.latency, -1),
    instruction: (one, other) => one.instruction.localeCompare(other.instruction),
  };

  // ---- the state of the form is the page's #fragment, so that a view can be linked to

  const readForm = () => Object.fromEntries(fields.filter((field) => field.value !== "").map((field) => [field.name, field.value]));

  const writeForm = (state) => {
    for (const field of fields) {
      field.value = state[field.name] ?? "";
      if (field.value !== (state[field.name] ?? "")) field.value = ""; // a choice that this page does not have
    }
  };

  const readFragment = () => Object.fromEntries(new URLSearchParams(location.hash.replace(/^#/, "")));

  const apply = () => {
    const state = readForm();
    for (const field of fields) field.classList.toggle("set", field.name in state);
    try {
      history.replaceState(null, "", "#" + new URLSearchParams(state));
    } catch {
      // some hosts of a file forbid it; the page works without
    }
    shown = data.entries.filter(matcher(state));
    if (SORTS[state.sort]) shown.sort(SORTS[state.sort]);
    const all = data.entries.length;
    count.textContent = shown.length === all ? `${number.format(all)} edits` : `${number.format(shown.length)} of ${number.format(all)} edits`;
    list.replaceChildren();
    drawn = 0;
    if (!shown.length) list.append(element("p", "empty", "No edit matches these filters."));
    drawMore();
  };

  // ---- cards

  const picture = (card, part, entry) => {
    const frame = card.querySelector(`[data-part=${part}]`);
    const image = entry[part] === null ? undefined : data.images[entry[part]];
    if (image === undefined) {
      frame.append(element("span", "quiet", entry[part] === null ? "no image" : "image missing"));
      return;
    }
    const made = element("img", Math.max(image.width, image.height) <= 96 ? "tiny" : "");
    made.decoding = "async";
    made.loading = "lazy";
    made.width = image.width;
    made.height = image.height;
    made.alt = part === "source" ? `Source image of: ${entry.instruction}` : `Edited image for: ${entry.instruction}`;
    made.src = image.uri;
    frame.append(made);
    card.querySelector(`[data-part=${part}-size]`).textContent = `${image.width} × ${image.height}`;
  };

  const verdictRows = (entry) => {
    const rows = [];
    const known = [...order, ...new Set(entry.verdicts.map((verdict) => verdict.category))];
    for (const category of new Set(known)) {
      const asked = entry.verdicts.filter((verdict) => verdict.category === category);
      if (!asked.length) continue;
      rows.push(element("h4", "", category));
      for (const verdict of asked) {
        const row = element("div", "verdict");
        const [name, answer] = ANSWERS.get(verdict.passed);
        const question = element("span", "question", verdict.question);
        if (verdict.reason) question.append(element("span", "reason", verdict.reason));
        row.append(element("span", `answer ${name}`, answer), question);
        rows.push(row);
      }
    }
    return rows;
  };

  const facts = (entry) => {
    const fixed = (value) => (value === null ? null : value.toFixed(2));
    const changed = entry.judged_score !== null && entry.judged_score !== entry.score;
    return [
      ["Row", entry.label],
      ["Score of the judge", changed ? fixed(entry.judged_score) : null],
      ["Samples", entry.samples],
      ["Spread", fixed(entry.spread)],
      ["Tokens", entry.tokens === null ? null : number.format(entry.tokens)],
      ["Latency", entry.latency === null ? null : `${fixed(entry.latency)} s`],
      ...data.judges[entry.judge],
    ].filter(([, value]) => value !== null);
  };

  const score = (place, entry) => {
    if (entry.score === null) {
      place.classList.add("none");
      place.textContent = "not judged";
      return;
    }
    place.textContent = entry.score.toFixed(2);
    const bar = element("span", "bar");
    bar.style.setProperty("--score", entry.score);
    place.append(bar);
    place.title = `${entry.score.toFixed(2)} of 10`;
  };

  const alarm = (one) => {
    const effect = one.cap === null ? "voids the score" : `caps the score at ${one.cap}`;
    return element("li", "", `Guard ${one.guard} ${effect}: ${one.reason}`);
  };

  const draw = (entry) => {
    const card = template.content.firstElementChild.cloneNode(true);
    const part = (name) => card.querySelector(`[data-part=${name}]`);
    const fill = (name, made) => {
      part(name).append(...made);
      part(name).hidden = made.length === 0;
    };
    card.dataset.number = entry.number;
    picture(card, "source", entry);
    picture(card, "edited", entry);
    part("instruction").textContent = entry.instruction || "no instruction";
    score(part("score"), entry);
    fill("failure", entry.failure === null ? [] : [entry.failure]);
    fill("flags", entry.flags.map((flag) => element("li", "", flag)));
    fill("alarms", entry.alarms.map(alarm));
    fill("verdicts", verdictRows(entry));
    part("trace").textContent = entry.trace;
    part("trace-fold").hidden = entry.trace === "";
    for (const [name, value] of facts(entry)) part("facts").append(element("dt", "", name), element("dd", "", value));
    return card;
  };

  const drawMore = () => {
    list.append(...shown.slice(drawn, drawn + STEP).map(draw));
    drawn = Math.min(drawn + STEP, shown.length);
    more.hidden = drawn >= shown.length;
  };

  // ---- what people do

  let typing;
  form.addEventListener("input", (event) => {
    clearTimeout(typing);
    typing = setTimeout(apply, event.target.name === "q" ? 120 : 0);
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(apply, 0));
  more.addEventListener("click", drawMore);
  for (const button of document.querySelectorAll("[data-set]")) {
    button.addEventListener("click", () => {
      writeForm({ ...readForm(), [button.dataset.set]: button.dataset.value });
      apply();
      document.getElementById("edits").scrollIntoView();
    });
  }
  addEventListener("hashchange", () => {
    if (location.hash === "#edits") return; // the skip link
    writeForm(readFragment());
    apply();
  });
  const near = new IntersectionObserver((seen) => {
    if (!seen.some((each) => each.isIntersecting) || more.hidden) return;
    drawMore();
    near.unobserve(more.parentElement); // observing anew tells whether the end is still near
    near.observe(more.parentElement);
  }, { rootMargin: "1200px" });
  near.observe(more.parentElement);

  writeForm(readFragment());
  apply();
})();
