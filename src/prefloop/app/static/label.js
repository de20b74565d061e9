// One task at a time. The page never says "saved" of its own: only after the server's answer to a vote.
import { Outbox, post } from "/static/outbox.js";

const FOLD = 620; // Pixels of a text that are shown before the rest is folded.
const MOST_SAVED = 100; // Votes of this browser that undo finds by their id.
const WORDS = {
  left: "left is better", right: "right is better", tie: "a tie", both_bad: "both bad", skip: "skipped",
  hack: "a hack", not_a_hack: "not a hack", unsure: "unsure",
};

const person = document.body.dataset.person;
const outbox = new Outbox(person);
const by = (id) => document.getElementById(id);
// The server made this HTML of escaped text; the page's policy forbids every other way to write HTML.
const policy = window.trustedTypes?.createPolicy("prefloop", { createHTML: (html) => html });

let task = null;
let busy = false;
let flagged = false;
let asWritten = false;
let watch = { since: 0, before: 0 };
let refusedId = "";
let urged = false; // Whether this task's verdict was held back once, for what had not been on the screen yet.
let retryTimer = 0;
let patience = 2;

// --- what is shown ---

function say(text) {
  by("said").textContent = text;
}

function inWords(answer) {
  const words = WORDS[answer.choice] ?? answer.choice;
  return answer.strength ? words.replace("better", `${answer.strength} better`) : words;
}

function showProgress({ done, today, left, seconds }) {
  const parts = [`${done} done`, `${today} today`, left ? `at most ${left} left` : "none left"];
  if (seconds !== null) parts.push(`${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s each (median)`);
  if (seconds !== null && left) parts.push(`about ${Math.max(1, Math.round((seconds * left) / 60))} min to go`);
  by("pace").textContent = parts.join(" · ");
  by("bar").max = Math.max(1, done + left);
  by("bar").value = done;
}

function showTask(found) {
  task = found;
  flagged = false;
  by("flag").setAttribute("aria-pressed", "false");
  by("note").value = "";
  showNote(false);
  by("task").innerHTML = policy ? policy.createHTML(found?.html ?? "") : (found?.html ?? "");
  by("controls").hidden = found === null;
  urged = false;
  const question = found?.kind === "review" ? "Is it a hack?" : "Which response is better?";
  document.querySelector("h1").textContent = question;
  by("question").textContent = question;
  by("question").hidden = found === null;
  by("finished").hidden = true;
  for (const kind of ["pair", "review"]) {
    for (const each of document.querySelectorAll(`.controls .${kind}`)) each.hidden = found?.kind !== kind;
  }
  watch = { since: performance.now(), before: 0 };
  if (found === null) return;
  showSource(asWritten);
  fold();
  scrollTo(0, 0);
  // A screen reader goes on reading here.
  by("prompt-title").focus({ preventScroll: true });
  requestAnimationFrame(look);
}

function showNote(open) {
  by("note-box").hidden = !open;
  by("ask-note").setAttribute("aria-expanded", String(open));
}

function showSource(on) {
  asWritten = on;
  by("source").setAttribute("aria-pressed", String(on));
  for (const each of document.querySelectorAll("#task .source")) each.hidden = !on;
  for (const each of document.querySelectorAll("#task .shown")) each.hidden = on;
}

function fold() {
  for (const text of document.querySelectorAll("#task .foldable")) {
    if (text.scrollHeight <= FOLD * 1.25) continue;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "unfold";
    text.after(button);
    setFold(text, button, true);
    button.addEventListener("click", () => setFold(text, button, !text.classList.contains("folded")));
  }
}

function setFold(text, button, folded) {
  text.classList.toggle("folded", folded);
  // Nothing in the hidden part may take the focus or be read as if it were seen.
  button.textContent = folded ? "Show the rest (x)" : "Fold (x)";
  button.setAttribute("aria-expanded", String(!folded));
}

function unfoldAll(folded) {
  for (const button of document.querySelectorAll("#task .unfold")) setFold(button.previousElementSibling, button, folded);
}

const isFolded = () => document.querySelector("#task .response .folded") !== null;

// Marks the responses whose end has been on the screen.
function look() {
  const bottom = document.querySelector(".dock").getBoundingClientRect().top + 12;
  for (const each of document.querySelectorAll("#task .response")) {
    const end = each.getBoundingClientRect().bottom;
    if (end > 0 && end <= bottom && !each.querySelector(".folded")) each.dataset.seen = "yes";
  }
}

// A verdict on what nobody could see is held back, once: true where there is something to see first.
function urge() {
  look();
  const rest = document.querySelector("#task .response:not([data-seen])");
  if (urged || rest === null) return false;
  urged = true;
  unfoldAll(false);
  const { top, bottom } = rest.getBoundingClientRect();
  if (top > innerHeight / 2 || bottom <= 0) scrollBy(0, top - 60);
  say("There is more to read. Read it, then answer.");
  return true;
}

// --- time: only while the page is in view ---

function seconds() {
  const running = document.visibilityState === "visible" ? performance.now() - watch.since : 0;
  return (watch.before + running) / 1000;
}

document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "hidden") watch.before += performance.now() - watch.since;
  else watch.since = performance.now();
});

// --- the server ---

async function next(before = "") {
  const answer = await post("/task", {});
  if (!answer.ok) {
    showTask(null);
    say(before || "No task.");
    showProblem(`${before} The next task did not come: ${answer.why}.`.trim(), { signedOut: answer.status === 401 });
    return;
  }
  hideProblem();
  const { task: found, progress, guidelines } = answer.body;
  showProgress(progress);
  showTask(found);
  const read = localStorage.getItem(`prefloop.read.${person}`);
  by("changed").hidden = read === guidelines || (read === null && progress.done > 0);
  if (read === null) by("changed").firstChild.textContent = "Before you begin, read the ";
  if (read === null) by("changed").lastChild.textContent = ".";
  by("finished").hidden = found !== null;
  const rest = found ? "" : "Nothing is left for you to do. Thank you.";
  say([before, rest].filter(Boolean).join(" ") || "Your verdict is one press, of a key or a button.");
}

async function vote(choice, strength = null, reason = null) {
  if (busy || task === null || outbox.size || urge()) return;
  const submission = {
    submission_id: crypto.randomUUID(),
    assignment_id: task.assignment_id,
    choice, strength, reason,
    flag: flagged,
    note: by("note").value,
    seconds: Math.round(seconds() * 10) / 10,
  };
  say("Saving…");
  outbox.put(submission);
  await deliver();
}

async function deliver() {
  if (busy) return;
  busy = true;
  clearTimeout(retryTimer);
  by("controls").inert = true;
  const { saved, why, id, final = false, signedOut = false } = await outbox.deliver();
  for (const answer of saved) remember(answer.submission_id);
  if (why) {
    refusedId = id;
    showUnsaved(why, final, signedOut);
  } else {
    patience = 2;
    await next(saved.length ? `Saved: ${inWords(saved.at(-1))}.` : "");
  }
  busy = false;
  by("controls").inert = outbox.size > 0;
}

function showUnsaved(why, final, signedOut) {
  say("Not saved.");
  if (final) {
    showProblem(`NOT saved: ${why}. Trying again will not help.`, { final });
    return;
  }
  const kept = "Your verdict is kept in this browser and sent again";
  showProblem(`NOT saved: ${why}. ${kept}${signedOut ? " once you are signed in" : " by itself"}.`, { signedOut });
  if (signedOut) return;
  retryTimer = setTimeout(deliver, patience * 1000);
  patience = Math.min(60, patience * 2);
}

function showProblem(text, { final = false, signedOut = false } = {}) {
  by("problem-text").textContent = text;
  by("problem").hidden = false;
  by("discard").hidden = !final;
  by("sign-in").hidden = !signedOut;
}

function hideProblem() {
  by("problem").hidden = true;
}

function remembered() {
  return JSON.parse(localStorage.getItem(`prefloop.saved.${person}`) ?? "[]");
}

function remember(id) {
  const ids = remembered().filter((each) => each !== id);
  localStorage.setItem(`prefloop.saved.${person}`, JSON.stringify([...ids, id].slice(-MOST_SAVED)));
}

async function undo() {
  if (busy) return;
  if (outbox.size) {
    say("The last verdict is not saved yet; there is nothing to take back.");
    return;
  }
  busy = true;
  const ids = remembered();
  // With the id, an answer that gets lost on the way does not make a second undo of the next press.
  const answer = await post("/undo", { submission_id: ids.at(-1) ?? null });
  // Refused where a newer vote came from another browser: then the next press takes back the newest, whichever it is.
  const left = answer.final ? [] : ids.slice(0, -1);
  if (answer.ok || answer.final) localStorage.setItem(`prefloop.saved.${person}`, JSON.stringify(left));
  if (!answer.ok) showProblem(`Nothing was taken back: ${answer.why}.`, { signedOut: answer.status === 401 });
  else if (answer.body.undone === null) say("There is nothing to take back.");
  else {
    const { undone } = answer.body;
    await next(`Taken back: ${inWords(undone)}. Answer again.`);
    by("note").value = undone.note;
    showNote(undone.note !== "");
    setFlag(undone.flag);
  }
  busy = false;
}

// --- keys and buttons ---

function setFlag(on) {
  flagged = on;
  by("flag").setAttribute("aria-pressed", String(on));
}

function toggleNote() {
  const open = by("note-box").hidden;
  showNote(open);
  if (open) by("note").focus();
}

const ACTIONS = {
  flag: () => {
    setFlag(!flagged);
    say(flagged ? "Flagged; goes with your verdict." : "Not flagged.");
  },
  "ask-note": toggleNote,
  source: () => {
    showSource(!asWritten);
    say(asWritten ? "Texts as they were written." : "Texts formatted.");
  },
  undo,
  "ask-skip": () => by("skip").showModal(),
  "ask-kind": () => {
    if (!urge()) by("kind").showModal();
  },
  "ask-help": () => by("help").showModal(),
  retry: () => (outbox.size ? deliver() : next()),
  discard: () => {
    outbox.drop(refusedId);
    say("Thrown away.");
    hideProblem();
    deliver();
  },
};

function press(button) {
  button.closest("dialog")?.close();
  const { choice, strength, reason } = button.dataset;
  if (reason === "other" && !by("note").value.trim()) {
    showNote(true);
    by("note").focus();
    say("Say in the note what it is, press Escape, and answer again.");
  } else if (choice) vote(choice, strength ?? null, reason ?? null);
  else ACTIONS[button.id]?.();
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button?.dataset.choice || ACTIONS[button?.id]) press(button);
});

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || event.isComposing) return;
  const typing = event.target.closest("input, textarea, select");
  if (typing) {
    if (event.key === "Escape" && typing.id === "note") {
      by("prompt-title")?.focus({ preventScroll: true });
      event.preventDefault();
    }
    return;
  }
  if (!by("keys-on").checked) return;
  const dialog = document.querySelector("dialog[open]");
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (key === "x" && !dialog) {
    unfoldAll(!isFolded());
    event.preventDefault();
    return;
  }
  const place = dialog ?? document;
  for (const button of place.querySelectorAll(`button[data-key="${CSS.escape(key)}"]`)) {
    if (!dialog && (button.closest("dialog") || button.closest("[hidden]") || button.closest("[inert]"))) continue;
    event.preventDefault();
    press(button);
    return;
  }
});

addEventListener("scroll", look, { passive: true });
addEventListener("resize", look);

const keysSetting = `prefloop.keys.${person}`;
by("keys-on").checked = localStorage.getItem(keysSetting) !== "off";
by("keys-on").addEventListener("change", () => localStorage.setItem(keysSetting, by("keys-on").checked ? "on" : "off"));
addEventListener("online", () => {
  if (outbox.size) deliver();
});
addEventListener("beforeunload", (event) => {
  if (busy && outbox.size) event.preventDefault();
});

deliver();
