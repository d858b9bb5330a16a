// What recommend.js sees of a browser, with a clock that a test moves and a service that a test scripts. For any engine.

class Target {
  constructor() {
    this.listeners = {};
  }
  addEventListener(name, listener) {
    (this.listeners[name] = this.listeners[name] || []).push(listener);
  }
  removeEventListener(name, listener) {
    this.listeners[name] = (this.listeners[name] || []).filter((one) => one !== listener);
  }
  dispatch(name) {
    for (const listener of [...(this.listeners[name] || [])]) listener({ type: name });
  }
}

class Signal extends Target {
  constructor() {
    super();
    this.aborted = false;
  }
}

class Storage {
  constructor() {
    this.items = new Map();
    this.room = Infinity;
  }
  get length() {
    return this.items.size;
  }
  key(index) {
    return [...this.items.keys()][index];
  }
  getItem(key) {
    return this.items.has(key) ? this.items.get(key) : null;
  }
  setItem(key, value) {
    if (this.items.size >= this.room) throw new Error("QuotaExceededError");
    this.items.set(key, value);
  }
  removeItem(key) {
    this.items.delete(key);
  }
}

const page = {
  now: 1_800_000_000_000,
  timers: new Map(),
  nextTimer: 1,
  requests: [], // {how, url, method, headers, body, keepalive}, in the order in which they were sent
  script: [], // answers to come, {status, body, headers, afterMs}; status 0: the network fails. Then the usual ones.
  taken: new Set(), // event ids that the service has
  beacons: true, // whether the browser takes beacons
  dropped: [],
  onDropped: (events, reason) => page.dropped.push([events.map((one) => one.item_id), reason]),

  async settle() {
    for (let turn = 0; turn < 200; turn += 1) await null;
  },

  async advance(ms) {
    const end = page.now + ms;
    await page.settle();
    for (;;) {
      const due = [...page.timers].filter(([, timer]) => timer.at <= end).sort((a, b) => a[1].at - b[1].at)[0];
      if (!due) break;
      page.timers.delete(due[0]);
      page.now = Math.max(page.now, due[1].at);
      due[1].work();
      await page.settle();
    }
    page.now = end;
  },

  // The page is gone, without a chance to do anything more; what it has stored stays.
  reload() {
    page.timers.clear();
    window.listeners = {};
    document.listeners = {};
    document.visibilityState = "visible";
  },

  hide() {
    document.visibilityState = "hidden";
    document.dispatch("visibilitychange");
    window.dispatch("pagehide");
  },

  show() {
    document.visibilityState = "visible";
    document.dispatch("visibilitychange");
  },

  // What the events of each request to /events were.
  sent() {
    const told = page.requests.filter((one) => one.url.endsWith("/events"));
    return told.map((one) => one.body.events.map((event) => event.item_id));
  },

  serve(request) {
    if (page.script.length) return page.script.shift();
    if (request.url.endsWith("/events")) {
      const rejected = [];
      request.body.events.forEach((event, index) => {
        if (event.domain === "Bokos") rejected.push({ index, reason: "unknown domain" });
        else page.taken.add(event.event_id);
      });
      return { status: 202, body: { accepted: 0, duplicates: 0, rejected } };
    }
    const items = [{ item_id: "B1", score: 1.5, rank: 1 }];
    return { status: 200, body: { recommendation_id: "r1", user_id: "u", source: "model", domains: { Books: items } } };
  },
};

function fakeFetch(url, { method = "GET", headers = {}, body, keepalive = false, signal }) {
  const request = { how: "fetch", url, method, headers, body: body && JSON.parse(body), keepalive };
  page.requests.push(request);
  const { status, body: answer = {}, headers: given = {}, afterMs = 0 } = page.serve(request);
  return new Promise((resolve, reject) => {
    const respond = () => {
      if (status === 0) reject(new TypeError("network"));
      const text = typeof answer === "string" ? answer : JSON.stringify(answer);
      resolve({
        status,
        ok: status >= 200 && status < 300,
        headers: { get: (name) => (name in given ? given[name] : null) },
        text: async () => text,
      });
    };
    const abort = () => reject(Object.assign(new Error("aborted"), { name: "AbortError" }));
    if (signal && signal.aborted) abort();
    if (signal) signal.addEventListener("abort", abort);
    if (afterMs) setTimeout(respond, afterMs);
    else respond();
  });
}

const localStorage = new Storage();
const globals = {
  page,
  window: Object.assign(new Target(), { localStorage }),
  document: Object.assign(new Target(), { visibilityState: "visible" }),
  location: { origin: "https://shop.example", href: "https://shop.example/books?page=2" },
  navigator: {
    onLine: true,
    sendBeacon(url, blob) {
      if (page.beacons) {
        const request = { how: "beacon", url, type: blob.type, body: JSON.parse(blob.text) };
        page.requests.push(request);
        page.serve(request);
      }
      return page.beacons;
    },
  },
  fetch: fakeFetch,
  setTimeout(work, ms) {
    page.timers.set(page.nextTimer, { at: page.now + ms, work });
    return page.nextTimer++;
  },
  clearTimeout: (id) => page.timers.delete(id),
  crypto: { getRandomValues: (bytes) => bytes.map(() => Math.floor(Math.random() * 256)) },
  Blob: class {
    constructor([text], { type } = {}) {
      Object.assign(this, { text, type, size: encodeURIComponent(text).replace(/%../g, "x").length });
    }
  },
  URL: class {
    constructor(url, base) {
      const absolute = /^[a-z]+:\/\/[^/]+/.exec(url) || /^[a-z]+:\/\/[^/]+/.exec(base);
      this.origin = absolute[0];
    }
  },
  AbortController: class {
    constructor() {
      this.signal = new Signal();
    }
    abort(reason) {
      this.signal.aborted = true;
      this.signal.reason = reason;
      this.signal.dispatch("abort");
    }
  },
  console: { warn: (text) => page.dropped.push(text), error: (text) => page.dropped.push(text) },
};
for (const [name, value] of Object.entries(globals)) {
  Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
}
Date.now = () => page.now;
