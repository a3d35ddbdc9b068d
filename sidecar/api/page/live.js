// Follows the state: over a stream of events, by asking again and again where there is none, and anew after every end.

import { open, Refused } from "./api.js";
import { events } from "./events.js";

const SILENCE_MS = 40_000; // the sidecar gives a sign of life every 15 s
const POLL_MS = 1_000;
const POLLS = 30; // then the stream is tried again
const WAITS_MS = [300, 700, 1_500, 3_000, 5_000];

const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

/**
 * Calls `arrive` with each state that is streamed, `begin` before, `more` to ask for what is new where there is no stream, and `tell` with how it goes: `live`,
 * `polling`, `reconnecting`, `stopping`, `locked`. Ends when locked, or with `signal`.
 */
export async function follow({ begin, more, arrive, tell, signal }) {
  let failures = 0;
  while (!signal.aborted) {
    try {
      await begin();
      const reached = () => (failures = 0);
      await stream({ more, arrive, tell, signal, reached });
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Refused && error.locked) return tell("locked", error);
      if (isStopping(error)) tell("stopping");
      else tell("reconnecting");
    }
    await pause(WAITS_MS[Math.min(failures++, WAITS_MS.length - 1)] * (0.75 + Math.random() / 2));
  }
}

async function stream({ more, arrive, tell, signal, reached }) {
  let came = false;
  try {
    const response = await open("v1/watch", { signal, headers: { Accept: "text/event-stream" } });
    if (!response.headers.get("Content-Type")?.startsWith("text/event-stream")) throw new Refused(response.status, {});
    for await (const { event, data } of events(response, SILENCE_MS)) {
      if (!came) tell("live");
      came = true;
      reached();
      if (event === "state") arrive(JSON.parse(data));
      if (event === "end") throw ending(JSON.parse(data).reason);
    }
  } catch (error) {
    const noStream = error instanceof Refused && !error.locked && !isStopping(error);
    if (signal.aborted || !(noStream || silent(error, came))) throw error;
    return poll({ more, tell, signal, reached });
  }
  throw new Error("the stream ended");
}

/** What an end means: the sidecar stops, or this reader may read no more. */
const ending = (reason) => (reason === "draining" ? new Refused(503, { type: reason }) : new Error(`the stream ended: ${reason}`));

/** Whether something between here and the sidecar holds back what is streamed. */
const silent = (error, came) => !came && !(error instanceof Refused) && !(error instanceof TypeError);

const isStopping = (error) => error instanceof Refused && error.type === "draining";

async function poll({ more, tell, signal, reached }) {
  for (let n = 0; n < POLLS && !signal.aborted; n++) {
    await more();
    tell("polling");
    reached();
    await pause(POLL_MS);
  }
}
