// Server-sent events, read from a response: the browser's own EventSource cannot send a token.

/** The events of a response as `{event, data}`, and `{event: "alive"}` for each piece that brings none. Fails after `silence`. */
export async function* events(response, silence) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await within(silence, reader.read());
      if (done) return;
      const blocks = (rest + value).replaceAll("\r\n", "\n").split("\n\n");
      rest = blocks.pop();
      yield { event: "alive" };
      for (const block of blocks) {
        const found = parsed(block);
        if (found.data) yield found;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function parsed(block) {
  const found = { event: "message", data: "" };
  for (const line of block.split("\n")) {
    const [, name, text] = /^([^:]*):? ?(.*)$/s.exec(line);
    if (name === "event") found.event = text;
    if (name === "data") found.data += (found.data && "\n") + text;
  }
  return found;
}

async function within(milliseconds, promise) {
  let timer;
  const silence = new Promise((_, fail) => {
    timer = setTimeout(() => fail(new Error("nothing came for too long")), milliseconds);
  });
  try {
    return await Promise.race([promise, silence]);
  } finally {
    clearTimeout(timer);
  }
}
