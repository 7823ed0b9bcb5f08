
"use strict";
// Everything from the data is set as text, never as HTML. Which side shows which system is not in this page.
(() => {
  const study = JSON.parse(document.getElementById("study").textContent);
  const items = [...document.querySelectorAll("script.item")];
  const ids = items.map((each) => each.dataset.item);
  const ANSWERS = ["left", "same", "right"];
  const STORE = `editr1-study-${study.study}`;
  const KEYS = new Map([
    ["1", "left"], ["ArrowLeft", "left"], ["2", "same"], ["ArrowDown", "same"], ["3", "right"], ["ArrowRight", "right"],
    ["u", "undo"], ["U", "undo"], ["Backspace", "undo"], ["n", "skip"], ["N", "skip"],
  ]);
  const part = (id) => document.getElementById(id);

  // raters: [{ rater, started, answers: [{ item, answer, milliseconds, at }] }], answers in the order given.
  let memory = { current: null, raters: [] };
  let at = 0; // place of the item that is shown
  let since = 0; // when it was

  const whole = (value) => Number.isSafeInteger(value) && value >= 0;

  // ---- what is kept in the browser; it may be broken, or another tab's

  const readable = (found) => {
    const raters = [];
    for (const each of Array.isArray(found?.raters) ? found.raters : []) {
      if (typeof each?.rater !== "string" || !whole(each.started) || !Array.isArray(each.answers)) continue;
      const seen = new Set();
      const answers = each.answers.filter((answer) => {
        const fine = ids.includes(answer?.item) && ANSWERS.includes(answer.answer) && !seen.has(answer.item) &&
          whole(answer.milliseconds) && whole(answer.at);
        if (fine) seen.add(answer.item);
        return fine;
      }).map(({ item, answer, milliseconds, at: when }) => ({ item, answer, milliseconds, at: when }));
      raters.push({ rater: each.rater, started: each.started, answers });
    }
    const known = raters.some((each) => each.rater === found?.current);
    return { current: known ? found.current : null, raters };
  };

  const load = () => {
    try {
      memory = readable(JSON.parse(localStorage.getItem(STORE) ?? "null"));
    } catch {
      // no storage, or not ours: begin anew
    }
  };

  const save = () => {
    try {
      localStorage.setItem(STORE, JSON.stringify(memory));
      removeEventListener("beforeunload", ask);
    } catch {
      addEventListener("beforeunload", ask); // only this open page knows the answers
      warn("This browser keeps no progress for this page: export your answers before you close it.");
    }
  };

  const ask = (event) => event.preventDefault();

  const warn = (text) => {
    part("warning").textContent = text;
    part("warning").hidden = false;
  };

  // ---- where we are

  const rater = () => memory.raters.find((each) => each.rater === memory.current);

  const unanswered = (from) => {
    const done = new Set(rater().answers.map((each) => each.item));
    for (let step = 0; step < ids.length; step++) {
      const place = (from + step) % ids.length;
      if (!done.has(ids[place])) return place;
    }
    return null;
  };

  const picture = (id, uri) => {
    const image = part(id);
    image.onload = () => image.classList.toggle("tiny", Math.max(image.naturalWidth, image.naturalHeight) <= 96);
    image.src = uri;
  };

  const draw = () => {
    const person = rater();
    part("start").hidden = person !== undefined;
    for (const id of ["who", "tools"]) part(id).hidden = person === undefined;
    const place = person === undefined ? null : unanswered(at);
    part("item").hidden = place === null;
    part("done").hidden = person === undefined || place !== null;
    if (person === undefined) return;
    part("name").textContent = person.rater;
    part("bar").max = ids.length;
    part("bar").value = person.answers.length;
    part("count").textContent = `${person.answers.length} of ${ids.length} answered`;
    part("undo").disabled = person.answers.length === 0;
    part("skip").disabled = ids.length - person.answers.length < 2;
    if (place === null) return;
    at = place;
    const item = JSON.parse(items[place].textContent);
    part("instruction").textContent = item.instruction;
    for (const id of ["source", "left", "right"]) picture(id, item[id]);
    since = performance.now();
  };

  // ---- what people do

  const act = {
    answer: (answer) => {
      if (part("item").hidden) return;
      const milliseconds = Math.max(0, Math.round(performance.now() - since));
      rater().answers.push({ item: ids[at], answer, milliseconds, at: Date.now() });
      save();
      draw();
    },
    undo: () => {
      const last = rater()?.answers.pop();
      if (last === undefined) return;
      at = ids.indexOf(last.item);
      save();
      draw();
    },
    skip: () => {
      if (part("item").hidden) return;
      at = (at + 1) % ids.length;
      draw();
    },
  };

  // Lone halves of surrogate pairs have no UTF-8, hence no checksum.
  const clean = (text) => [...text.normalize("NFC").replace(/\s+/gu, " ").trim()].slice(0, 80).join("").replace(/\p{Cs}/gu, "");

  const begin = (name) => {
    if (name === "") return;
    memory.current = name;
    if (rater() === undefined) memory.raters.push({ rater: name, started: Date.now(), answers: [] });
    at = 0;
    save();
    draw();
  };

  // ---- SHA-256 of a text, in hexadecimal; the browser's own is missing where the page comes over plain HTTP

  const sha256 = (text) => {
    const data = new TextEncoder().encode(text);
    const blocks = new DataView(new ArrayBuffer((((data.length + 8) >> 6) + 1) * 64));
    data.forEach((byte, place) => blocks.setUint8(place, byte));
    blocks.setUint8(data.length, 0x80);
    blocks.setUint32(blocks.byteLength - 4, data.length * 8);
    const primes = [];
    for (let n = 2; primes.length < 64; n++) if (primes.every((prime) => n % prime)) primes.push(n);
    const fraction = (value) => ((value % 1) * 2 ** 32) | 0;
    const turn = (value, by) => (value >>> by) | (value << (32 - by));
    const rounds = primes.map((prime) => fraction(Math.cbrt(prime)));
    let hash = primes.slice(0, 8).map((prime) => fraction(Math.sqrt(prime)));
    for (let start = 0; start < blocks.byteLength; start += 64) {
      const words = Array.from({ length: 16 }, (_, place) => blocks.getInt32(start + 4 * place));
      for (let n = 16; n < 64; n++) {
        const one = words[n - 15], two = words[n - 2];
        const first = turn(one, 7) ^ turn(one, 18) ^ (one >>> 3), second = turn(two, 17) ^ turn(two, 19) ^ (two >>> 10);
        words[n] = (words[n - 16] + first + words[n - 7] + second) | 0;
      }
      let [a, b, c, d, e, f, g, h] = hash;
      for (let n = 0; n < 64; n++) {
        const one = (h + (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) + ((e & f) ^ (~e & g)) + rounds[n] + words[n]) | 0;
        const two = ((turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) + ((a & b) ^ (a & c) ^ (b & c))) | 0;
        [h, g, f, e, d, c, b, a] = [g, f, e, (d + one) | 0, c, b, a, (one + two) | 0];
      }
      const added = [a, b, c, d, e, f, g, h];
      hash = hash.map((value, place) => (value + added[place]) | 0);
    }
    return hash.map((value) => (value >>> 0).toString(16).padStart(8, "0")).join("");
  };

  const exported = () => {
    const { rater: name, started, answers } = rater();
    const rows = answers.map((each) => [each.item, each.answer, each.milliseconds, each.at]);
    const checksum = sha256(JSON.stringify([study.study, name, started, rows]));
    const made = { format: "editr1-study-answers", version: 1, study: study.study, rater: name, started };
    return JSON.stringify({ ...made, exported: Date.now(), items: ids.length, answers, checksum }, null, 1);
  };

  const download = () => {
    const address = URL.createObjectURL(new Blob([exported() + "\n"], { type: "application/json" }));
    const link = document.createElement("a");
    link.href = address;
    link.download = `answers-${study.study}-${memory.current.replace(/[^\p{L}\p{N}_-]+/gu, "_")}.json`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(address), 60_000);
    removeEventListener("beforeunload", ask);
  };

  for (const button of document.querySelectorAll("[data-answer]")) {
    button.addEventListener("click", () => act.answer(button.dataset.answer));
  }
  part("undo").addEventListener("click", act.undo);
  part("skip").addEventListener("click", act.skip);
  part("export").addEventListener("click", download);
  part("begin").addEventListener("submit", (event) => {
    event.preventDefault();
    begin(clean(part("rater").value));
    document.activeElement?.blur(); // keys answer from now on
  });
  part("change").addEventListener("click", () => {
    memory.current = null;
    save();
    draw();
    part("rater").value = "";
    part("rater").focus();
  });
  addEventListener("keydown", (event) => {
    // A key that is held down must not answer the next items, too.
    if (event.repeat || event.ctrlKey || event.metaKey || event.altKey || event.target.closest?.("input")) return;
    const wanted = KEYS.get(event.key);
    if (wanted === undefined || rater() === undefined) return;
    event.preventDefault();
    if (ANSWERS.includes(wanted)) act.answer(wanted);
    else act[wanted]();
  });
  addEventListener("storage", (event) => {
    if (event.key !== STORE) return;
    load(); // another tab answered
    draw();
  });

  part("guide").textContent = study.guide;
  load();
  draw();
})();
