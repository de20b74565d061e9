// A vote stays here, and in the browser's storage, until the server has said that it is on disk. It is sent again with the
// same id, so that a vote whose answer got lost is not stored twice.
const SECONDS = 20;

export class Outbox {
  constructor(person) {
    this.prefix = `prefloop.unsaved.${person}.`;
    this.memory = new Map();
    for (const key of Object.keys(localStorage)) {
      if (key.startsWith(this.prefix)) this.memory.set(key.slice(this.prefix.length), JSON.parse(localStorage.getItem(key)));
    }
  }

  get size() {
    return this.memory.size;
  }

  // Whether the browser keeps it as well, beyond this page.
  put(submission) {
    this.memory.set(submission.submission_id, submission);
    try {
      localStorage.setItem(this.prefix + submission.submission_id, JSON.stringify(submission));
      return true;
    } catch {
      return false;
    }
  }

  drop(id) {
    this.memory.delete(id);
    localStorage.removeItem(this.prefix + id);
  }

  // Sends all that waits, the oldest first, until one fails: then `id` says which and `why`; `final` means that sending it
  // again cannot help.
  async deliver() {
    const saved = [];
    for (const [id, submission] of [...this.memory]) {
      const answer = await post("/vote", submission);
      if (!answer.ok) return { saved, id, why: answer.why, final: answer.final, signedOut: answer.status === 401 };
      if (!Number.isInteger(answer.body.saved)) return { saved, id, why: "the server's answer makes no sense" };
      this.drop(id);
      saved.push(answer.body);
    }
    return { saved, why: "" };
  }
}

export async function post(path, body) {
  let response;
  try {
    response = await fetch(path, {
      method: "POST",
      headers: { "Content-Type": "application/json", Accept: "application/json" },
      body: JSON.stringify(body),
      signal: AbortSignal.timeout(SECONDS * 1000),
    });
    const found = await response.json();
    if (response.ok) return { ok: true, status: response.status, body: found };
    // What the server refuses for its content it will refuse again.
    const final = [403, 409, 413, 422].includes(response.status);
    return { ok: false, status: response.status, why: String(found.detail ?? response.statusText), final };
  } catch (error) {
    const why = response ? `the server's answer cannot be read (${response.status})` : "the server cannot be reached";
    return { ok: false, status: response?.status ?? 0, why, final: false };
  }
}
