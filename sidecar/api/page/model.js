// What the page knows: the newest state, and the stays in states that led to it.

const MOST_STAYS = 40;

/** A stay: the time in one state. `updates`: writes that changed something else. */
export class Model {
  constructor() {
    this.forget();
  }

  forget() {
    this.current = null; // {epoch, revision, snapshot}
    this.folded = 0; // the revision up to which the stays are told
    this.stays = []; // oldest first
  }

  get behind() {
    return this.current !== null && this.folded < this.current.revision;
  }

  /** Begin anew with the newest revisions, oldest first. */
  load({ epoch, entries }) {
    const known = this.current?.epoch === epoch ? this.current : null;
    this.forget();
    entries.forEach((entry) => this.#fold(entry));
    const last = entries.at(-1) ?? null;
    this.current = known && known.revision > (last?.revision ?? 0) ? known : last;
  }

  /** A state that has just arrived. Those in between are missed: then the model is `behind`. */
  arrive(entry) {
    const { current } = this;
    if (current && current.epoch === entry.epoch && entry.revision <= current.revision) return false;
    const follows = current?.epoch === entry.epoch ? entry.revision === this.folded + 1 : entry.revision === 1;
    if (current && current.epoch !== entry.epoch) this.forget();
    this.current = entry;
    if (follows) this.#fold(entry);
    return true;
  }

  #fold({ revision, snapshot }) {
    if (this.stays.length === 0) this.stays = earlier(snapshot);
    const last = this.stays.at(-1);
    if (last?.state === snapshot.state) {
      if (last.revision) last.updates += 1;
      else Object.assign(last, { revision, version: snapshot.version, by: snapshot.source_module });
      if (snapshot.reason !== last.reason) last.latest = snapshot.reason;
    } else {
      this.stays.push(stayOf(revision, snapshot));
    }
    this.stays = this.stays.slice(-MOST_STAYS);
    this.folded = revision;
  }
}

/** The stays before the first revision that is told: a snapshot brings the last transitions along. */
const earlier = (snapshot) =>
  snapshot.history.map((move) => ({
    state: move.to_state,
    from: move.from_state,
    at: move.ts_wall,
    reason: move.trigger_event,
    updates: 0,
  }));

const stayOf = (revision, snapshot) => ({
  state: snapshot.state,
  from: snapshot.prev_state,
  at: snapshot.ts_wall,
  reason: snapshot.reason,
  by: snapshot.source_module,
  version: snapshot.version,
  revision,
  updates: 0,
});
