/**
 * Recommendations in a web page, and events that are not lost. An ES module without dependencies or build step.
 *
 *     import { createClient } from "/recommend.js";
 *     const shop = createClient({ userId: "u42" });
 *     const answer = await shop.recommend({ domains: ["Books"], k: 10 });
 *     for (const item of answer.domains.Books) shop.impression(item, answer);
 *     button.onclick = () => shop.click(answer.domains.Books[0], answer);
 *
 * Options of this module are in camelCase. What is asked and answered is the service's own JSON, in its own words
 * (`exclude_seen`), so that its OpenAPI page describes it and a field that is added there works here at once.
 * Asking may fail and says so (RecommendError). Telling never throws: events wait, in localStorage too, until the
 * service has taken them; each counts once by its `event_id`, however often and from however many tabs it is sent.
 *
 * @typedef {{item_id: string, domain: string, score: number, rank: number, title?: string}} Item
 *   `domain` is added here: an item says by itself where it belongs.
 *
 * @typedef {object} Recommendation
 * @property {string} recommendation_id
 * @property {string} user_id
 * @property {string} model_version
 * @property {"model" | "popularity" | "degraded"} source
 * @property {{key: string, variant: string, reason: string} | null} experiment
 * @property {string[]} missing_ids  Ids of the request that the model does not know.
 * @property {Record<string, Item[]>} domains  Best first.
 *
 * @typedef {object} RecommendRequest
 * @property {string[]} [domains]  Left out: all.
 * @property {number} [k]  Items per domain, 1 to 100; 10 if left out.
 * @property {boolean} [exclude_seen]  Leave out what the user has had; true if left out.
 * @property {string[]} [exclude_item_ids]
 * @property {{domain: string, item_id: string, timestamp?: number | string}[]} [history]
 *   Used in place of the stored one; nothing is stored.
 * @property {Record<string, string[]>} [candidates]  Per domain: only these are ranked.
 * @property {string[]} [categories]  Only items of these.
 *
 * @typedef {object} EventFields
 * @property {string} domain
 * @property {string} item_id
 * @property {"interaction" | "impression" | "click"} [event]  "interaction" if left out: bought, read, played.
 * @property {string} [recommendation_id]  Of the answer that showed the item.
 * @property {number} [rank]  In that answer.
 * @property {number | string} [timestamp]  Seconds since 1970 or ISO 8601; now if left out.
 * @property {string} [event_id]  Made if left out.
 *
 * @typedef {EventFields & {user_id: string, event_id: string, timestamp: number | string}} Event
 *
 * @typedef {{timeoutMs?: number, signal?: AbortSignal}} CallOptions
 *
 * @typedef {{status: number, retryAfterMs: number | null, answer: any}} Told  A status of 0: there was no answer.
 */

/** Events in one request, and bytes: all keepalive requests and beacons of a page share 64 KiB. */
const MAX_BATCH_EVENTS = 100;
const MAX_BATCH_BYTES = 30_000;
/** How long an event waits for company. */
const FLUSH_AFTER_MS = 1_000;
/** Events of one tab that may wait; the oldest go then. */
const MAX_WAITING = 1_000;
/** A live tab sends its own events well within this; what has waited longer was left behind. */
const LEFT_BEHIND_AFTER_MS = 10_000;
/** The service knows an event again for 7 days; later it would count twice. */
const TOO_OLD_AFTER_MS = 6.5 * 86_400_000;
const EVENTS_TIMEOUT_MS = 10_000;
const FIRST_PAUSE_MS = 1_000;
const LONGEST_PAUSE_MS = 300_000;
/** The batch itself is wrong. Anything else may pass: a network comes back, a key is mended, a route appears. */
const REFUSED_FOR_GOOD = [400, 413, 415, 422];

/** Why a question got no answer. */
export class RecommendError extends Error {
  /**
   * @param {object} fields
   * @param {number} fields.status  Of HTTP; 0: there was no answer at all.
   * @param {string} fields.detail  For people.
   * @param {string} fields.requestId  Under which the service's log has it.
   * @param {string} [fields.type]  For programs: `urn:syncrec:problem:unknown-domain`.
   * @param {{field: string, detail: string}[]} [fields.errors]  What is wrong with which field.
   * @param {number | null} [fields.retryAfterMs]  When to come back, if the service says so.
   * @param {boolean} [fields.timedOut]  No answer in time.
   */
  constructor({ status, detail, requestId, type = "about:blank", errors = [], retryAfterMs = null, timedOut = false }) {
    super(status ? `${status}: ${detail}` : detail);
    this.name = "RecommendError";
    this.status = status;
    this.detail = detail;
    this.requestId = requestId;
    this.type = type;
    this.errors = errors;
    this.retryAfterMs = retryAfterMs;
    this.timedOut = timedOut;
  }
}

/**
 * A client for one user. After a login make another; what this one has queued is sent all the same.
 *
 * @param {object} options
 * @param {string} options.userId
 * @param {string} [options.baseUrl]  Of the service; left out: where the page comes from.
 * @param {string} [options.apiKey]  Everyone who sees the page sees it: never an admin key. A proxy that adds the key
 *   on its way to the service is better.
 * @param {number} [options.timeoutMs]  For one question.
 * @param {(events: Partial<Event>[], reason: string) => void} [options.onDropped]  Told of events that are lost.
 */
export function createClient({ userId, baseUrl = "", apiKey = "", timeoutMs = 2_000, onDropped = warnOfDropped }) {
  if (typeof userId !== "string" || userId === "") throw new TypeError("createClient: userId must be a text");
  const url = baseUrl.replace(/\/+$/, "");
  const http = new Http(url, apiKey);
  const sender = new EventSender(http, new Outbox(`syncrec.event|${url}|`), onDropped);

  /** @type {(fields: EventFields) => void} */
  const event = (fields) => sender.add({ event_id: newId(), timestamp: Date.now() / 1000, user_id: userId, ...fields });

  return Object.freeze({
    /**
     * The best items per domain for this user. Not repeated when it fails: a page has a fallback, and all pages
     * together would hold a service down that is in trouble.
     *
     * @param {RecommendRequest} [request]
     * @param {CallOptions} [options]
     * @returns {Promise<Recommendation>}
     * @throws {RecommendError}
     */
    recommend: async (request = {}, options = {}) =>
      withDomains(await http.ask("POST", "/recommend", { user_id: userId, ...request }, { timeoutMs, ...options })),

    /**
     * The items nearest to one, per domain.
     *
     * @param {string} domain
     * @param {string} itemId
     * @param {{k?: number, domains?: string[]} & CallOptions} [options]
     * @returns {Promise<{domains: Record<string, Item[]>}>}
     * @throws {RecommendError}
     */
    similar: async (domain, itemId, { k, domains = [], ...options } = {}) => {
      const query = domains.map((one) => `domains=${encodeURIComponent(one)}`);
      if (k !== undefined) query.unshift(`k=${k}`);
      const path = `/items/${encodeURIComponent(domain)}/${encodeURIComponent(itemId)}/similar`;
      const asked = query.length ? `${path}?${query.join("&")}` : path;
      return withDomains(await http.ask("GET", asked, undefined, { timeoutMs, ...options }));
    },

    /**
     * What is stored of this user's past, oldest first.
     *
     * @param {CallOptions} [options]
     * @returns {Promise<{events: {domain: string | null, item_id: string | null, timestamp: number}[]}>}
     * @throws {RecommendError}
     */
    history: (options = {}) =>
      http.ask("GET", `/users/${encodeURIComponent(userId)}/history`, undefined, { timeoutMs, ...options }),

    /** Tell of something that happened. */
    event,

    /**
     * An item of an answer was shown.
     *
     * @param {Item} item
     * @param {Recommendation} recommendation
     */
    impression: (item, recommendation) => event(aboutItem("impression", item, recommendation)),

    /**
     * An item of an answer was clicked.
     *
     * @param {Item} item
     * @param {Recommendation} recommendation
     */
    click: (item, recommendation) => event(aboutItem("click", item, recommendation)),

    /**
     * Send what is queued now; resolves when it is sent or has to wait, and never rejects.
     *
     * @returns {Promise<void>}
     */
    flush: () => sender.flush(),

    /** Stop listening to the page. What is queued is sent off, or waits in localStorage for the next page. */
    close: () => sender.close(),
  });
}

/** One request at a time to the service, and what its answers mean. */
class Http {
  /** @param {string} url @param {string} apiKey */
  constructor(url, apiKey) {
    this.url = url;
    /** @type {Record<string, string>} */
    this.key = apiKey ? { authorization: `Bearer ${apiKey}` } : {};
    // A beacon can carry no header, so no key; a key in the address would end up in the logs of every proxy. And to
    // another origin it would need a preflight, which a page that goes away may not live to see answered.
    // `keepalive` serves both cases.
    this.mayBeacon = !apiKey && new URL(url || "/", location.href).origin === location.origin;
  }

  /**
   * @param {string} method
   * @param {string} path
   * @param {object | undefined} body
   * @param {{timeoutMs: number, signal?: AbortSignal}} options
   * @returns {Promise<any>}
   */
  async ask(method, path, body, { timeoutMs, signal }) {
    const requestId = newId();
    /** @type {Record<string, string>} */
    const headers = { ...this.key, "x-request-id": requestId, "x-request-timeout-ms": String(timeoutMs) };
    if (body !== undefined) headers["content-type"] = "application/json";
    const json = body === undefined ? undefined : JSON.stringify(body);
    try {
      return await within(timeoutMs, signal, async (limit) => {
        const response = await fetch(this.url + path, { method, headers, body: json, signal: limit });
        const text = await response.text();
        if (!response.ok) throw refusal(response, text, requestId);
        return JSON.parse(text);
      });
    } catch (error) {
      if (error instanceof RecommendError || (signal && signal.aborted)) throw error;
      if (error instanceof OutOfTime) {
        throw new RecommendError({ status: 0, detail: `no answer within ${timeoutMs} ms`, requestId, timedOut: true });
      }
      if (error instanceof SyntaxError) {
        throw new RecommendError({ status: 0, detail: "the answer is not JSON", requestId });
      }
      throw new RecommendError({ status: 0, detail: `not reachable: ${messageOf(error)}`, requestId });
    }
  }

  /**
   * Send events in a request that outlives the page.
   *
   * @param {string} json
   * @returns {Promise<Told>}
   */
  async tell(json) {
    try {
      return await within(EVENTS_TIMEOUT_MS, undefined, async (limit) => {
        const headers = { ...this.key, "content-type": "application/json" };
        const options = { method: "POST", headers, body: json, keepalive: true, signal: limit };
        const response = await fetch(`${this.url}/events`, options);
        const answer = parsed(await response.text());
        return { status: response.status, retryAfterMs: retryAfterMs(response), answer };
      });
    } catch {
      // Offline, cut off or late: the same to us, the events are sent again.
      return { status: 0, retryAfterMs: null, answer: {} };
    }
  }

  /**
   * Send events from a page that goes away.
   *
   * @param {string} json
   * @returns {boolean}  Whether the browser took it; whether it arrived is never known.
   */
  beacon(json) {
    // As application/json: a text would be sent as text/plain, which the service refuses.
    return navigator.sendBeacon(`${this.url}/events`, new Blob([json], { type: "application/json" }));
  }
}

/** Where events wait: in memory, and one by one in localStorage, so that tabs do not overwrite each other's. */
class Outbox {
  /** @param {string} prefix  Of this service's keys in localStorage. */
  constructor(prefix) {
    this.prefix = prefix;
    this.storage = openStorage();
    /** @type {Map<string, {event: Event, json: string, bytes: number, stored: boolean}>} */
    this.waiting = new Map();
  }

  get size() {
    return this.waiting.size;
  }

  /**
   * @param {Event} event
   * @returns {Event[]}  What had to go for it.
   */
  add(event) {
    const json = JSON.stringify(event);
    const stored = this.store(event.event_id, JSON.stringify({ at: Date.now(), event }));
    this.keep(event, json, stored);
    return this.shorten();
  }

  /**
   * Take what pages before this one, or tabs that are gone, have left behind.
   *
   * @returns {{lost: Event[], tooOld: Event[]}}
   */
  adopt() {
    const found = [];
    const tooOld = [];
    for (const [id, text] of this.stored()) {
      const { at, event } = parsed(text);
      const age = Date.now() - at;
      if (this.waiting.has(id) || age < LEFT_BEHIND_AFTER_MS) continue;
      if (event && age < TOO_OLD_AFTER_MS) {
        found.push({ at, event });
      } else {
        this.remove([id]);
        if (event) tooOld.push(event);
      }
    }
    found.sort((one, other) => one.at - other.at);
    for (const { event } of found) this.keep(event, JSON.stringify(event), true);
    return { lost: this.shorten(), tooOld };
  }

  /**
   * The oldest events that fit into one request.
   *
   * @param {Set<string>} [except]  Ids to leave out.
   * @returns {{events: Event[], json: string}}
   */
  batch(except = new Set()) {
    const chosen = [];
    let bytes = 0;
    for (const [id, one] of this.waiting) {
      if (except.has(id)) continue;
      if (one.stored && this.read(this.prefix + id) === null) {
        this.waiting.delete(id); // another tab has sent it
        continue;
      }
      bytes += one.bytes + 1;
      if (chosen.length > 0 && (chosen.length >= MAX_BATCH_EVENTS || bytes > MAX_BATCH_BYTES)) break;
      chosen.push(one);
    }
    return { events: chosen.map((one) => one.event), json: `{"events":[${chosen.map((one) => one.json).join(",")}]}` };
  }

  /** @param {string[]} ids */
  remove(ids) {
    for (const id of ids) {
      this.waiting.delete(id);
      if (this.storage) this.storage.removeItem(this.prefix + id);
    }
  }

  /** @private @param {Event} event @param {string} json @param {boolean} stored */
  keep(event, json, stored) {
    this.waiting.set(event.event_id, { event, json, bytes: new Blob([json]).size, stored });
  }

  /** @private @returns {Event[]} */
  shorten() {
    const lost = [...this.waiting.values()].slice(0, Math.max(0, this.size - MAX_WAITING)).map((one) => one.event);
    this.remove(lost.map((one) => one.event_id));
    return lost;
  }

  /** @private @param {string} id @param {string} text @returns {boolean} */
  store(id, text) {
    if (!this.storage) return false;
    try {
      this.storage.setItem(this.prefix + id, text);
      return true;
    } catch {
      return false; // full: the event waits in memory only, which is all that is lost with the page
    }
  }

  /** @private @param {string} key @returns {string | null} */
  read(key) {
    return this.storage && this.storage.getItem(key);
  }

  /** @private */
  stored() {
    /** @type {[string, string][]} */
    const found = [];
    for (let index = 0; this.storage && index < this.storage.length; index += 1) {
      const key = String(this.storage.key(index));
      if (key.startsWith(this.prefix)) found.push([key.slice(this.prefix.length), this.read(key) || ""]);
    }
    return found;
  }
}

/** When events are sent: together after a moment, again after a failure, at once when the page goes away. */
class EventSender {
  /** @param {Http} http @param {Outbox} outbox @param {(events: Partial<Event>[], reason: string) => void} onDropped */
  constructor(http, outbox, onDropped) {
    this.http = http;
    this.outbox = outbox;
    this.onDropped = onDropped;
    this.failures = 0;
    /** @type {ReturnType<typeof setTimeout> | null} */
    this.timer = null;
    /** @type {Promise<void> | null} */
    this.running = null;
    /** Ids that are under way and may arrive without our ever hearing of it. @type {Set<string>} */
    this.underway = new Set();
    this.onVisibility = () => (document.visibilityState === "hidden" ? this.leave() : this.comeBack());
    this.onPageHide = () => this.leave();
    this.onOnline = () => this.comeBack();
    document.addEventListener("visibilitychange", this.onVisibility);
    window.addEventListener("pagehide", this.onPageHide);
    window.addEventListener("online", this.onOnline);
    this.adopt();
    // What the page before this one has left a moment ago is not yet old enough to be called left behind.
    this.adoptTimer = setTimeout(() => this.adopt(), LEFT_BEHIND_AFTER_MS + FLUSH_AFTER_MS);
  }

  /** @param {Event} event */
  add(event) {
    try {
      const { user_id, domain, item_id, event_id } = event;
      for (const [name, value] of Object.entries({ user_id, domain, item_id, event_id })) {
        if (typeof value !== "string" || value === "") throw new TypeError(`${name} must be a text`);
      }
      this.drop(this.outbox.add(event), `${MAX_WAITING} events are waiting already`);
    } catch (error) {
      this.drop([event], messageOf(error));
      return;
    }
    if (this.outbox.size >= MAX_BATCH_EVENTS && this.failures === 0) this.flush();
    else this.sendIn(FLUSH_AFTER_MS);
  }

  /** @returns {Promise<void>} */
  flush() {
    if (this.running === null) {
      this.running = this.sendAll().finally(() => {
        this.running = null;
      });
    }
    return this.running;
  }

  close() {
    document.removeEventListener("visibilitychange", this.onVisibility);
    window.removeEventListener("pagehide", this.onPageHide);
    window.removeEventListener("online", this.onOnline);
    clearTimeout(this.adoptTimer);
    this.leave();
    this.stopTimer();
  }

  /** @private */
  async sendAll() {
    this.stopTimer();
    for (let batch = this.outbox.batch(); batch.events.length > 0; batch = this.outbox.batch()) {
      if (navigator.onLine === false) return; // `online` wakes us
      const ids = batch.events.map((one) => one.event_id);
      ids.forEach((id) => this.underway.add(id));
      const outcome = await this.http.tell(batch.json);
      ids.forEach((id) => this.underway.delete(id));
      if (!this.settle(batch.events, outcome)) {
        this.failures += 1;
        const longest = Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** this.failures);
        this.stopTimer();
        this.sendIn((outcome.retryAfterMs || 0) + longest * (0.5 + Math.random() / 2));
        return;
      }
      this.failures = 0;
    }
  }

  /**
   * @private
   * @param {Event[]} events
   * @param {Told} outcome
   * @returns {boolean}  Whether they are done with: taken, or refused for good.
   */
  settle(events, { status, answer }) {
    const taken = status >= 200 && status < 300;
    if (!taken && !REFUSED_FOR_GOOD.includes(status)) return false;
    this.outbox.remove(events.map((one) => one.event_id));
    if (!taken) this.drop(events, `${status}: ${answer.detail}`);
    for (const { index, reason } of answer.rejected || []) this.drop([events[index]], reason);
    return true;
  }

  /**
   * The page may be gone after this. What is sent here stays in the outbox until an answer says that it was taken: if
   * it was, the service knows it by its id when it comes again.
   *
   * @private
   */
  leave() {
    if (navigator.onLine === false) return;
    for (;;) {
      const batch = this.outbox.batch(this.underway);
      if (batch.events.length === 0) return;
      if (!this.http.mayBeacon) {
        this.http.tell(batch.json).then((outcome) => this.settle(batch.events, outcome)); // if the page stays after all
      } else if (!this.http.beacon(batch.json)) {
        return; // the browser has no more room; the next page sends the rest
      }
      batch.events.forEach((one) => this.underway.add(one.event_id));
    }
  }

  /** @private */
  comeBack() {
    this.underway.clear();
    this.failures = 0;
    this.adopt();
    this.flush();
  }

  /** @private */
  adopt() {
    const { lost, tooOld } = this.outbox.adopt();
    this.drop(lost, `${MAX_WAITING} events are waiting already`);
    this.drop(tooOld, "they have waited for a week");
    if (this.outbox.size > 0) this.sendIn(FLUSH_AFTER_MS);
  }

  /** @private @param {number} delayMs */
  sendIn(delayMs) {
    if (this.timer !== null) return;
    this.timer = setTimeout(() => {
      this.timer = null;
      this.flush();
    }, delayMs);
  }

  /** @private */
  stopTimer() {
    if (this.timer !== null) clearTimeout(this.timer);
    this.timer = null;
  }

  /** @private @param {Partial<Event>[]} events @param {string} reason */
  drop(events, reason) {
    if (events.length === 0) return;
    try {
      this.onDropped(events, reason);
    } catch (error) {
      console.error("recommend.js: onDropped threw", error); // its own bug must not stop the sending
    }
  }
}

class OutOfTime extends Error {}

/** @param {unknown} error @returns {string} */
function messageOf(error) {
  return error instanceof Error ? error.message : String(error);
}

/**
 * Run something that is aborted when its time is over or its caller does not want it any more.
 *
 * @template T
 * @param {number} timeoutMs
 * @param {AbortSignal | undefined} signal
 * @param {(limit: AbortSignal) => Promise<T>} work
 * @returns {Promise<T>}
 */
async function within(timeoutMs, signal, work) {
  const limit = new AbortController();
  let late = false;
  const timer = setTimeout(() => {
    late = true;
    limit.abort();
  }, timeoutMs);
  const abort = () => limit.abort(signal && signal.reason);
  if (signal && signal.aborted) abort();
  if (signal) signal.addEventListener("abort", abort);
  try {
    return await work(limit.signal);
  } catch (error) {
    throw late && !(error instanceof RecommendError) ? new OutOfTime() : error;
  } finally {
    clearTimeout(timer);
    if (signal) signal.removeEventListener("abort", abort);
  }
}

/**
 * What stands before the service answers errors too, in HTML; then the status says all that is known.
 *
 * @param {Response} response
 * @param {string} text
 * @param {string} requestId
 */
function refusal(response, text, requestId) {
  const problem = parsed(text);
  return new RecommendError({
    status: response.status,
    type: problem.type,
    detail: problem.detail || problem.title || "no problem document came with this status",
    requestId: problem.request_id || requestId,
    errors: problem.errors,
    retryAfterMs: retryAfterMs(response),
  });
}

/** @param {Response} response @returns {number | null} */
function retryAfterMs(response) {
  const given = response.headers.get("retry-after");
  if (given === null) return null;
  const ms = /^\d+$/.test(given) ? Number(given) * 1000 : Date.parse(given) - Date.now();
  return Number.isNaN(ms) ? null : Math.max(0, ms);
}

/** The object that a text is, or an empty one. @param {string} text @returns {any} */
function parsed(text) {
  try {
    return Object(JSON.parse(text));
  } catch {
    return {};
  }
}

/** @param {{domains: Record<string, any[]>}} answer @returns {any} */
function withDomains(answer) {
  if (!answer || !answer.domains) {
    throw new RecommendError({ status: 0, detail: "the answer has no domains", requestId: "" });
  }
  for (const [domain, items] of Object.entries(answer.domains)) {
    for (const item of items) item.domain = domain;
  }
  return answer;
}

/**
 * @param {"impression" | "click"} event
 * @param {Item} item
 * @param {Recommendation} recommendation
 * @returns {EventFields}
 */
function aboutItem(event, item, recommendation) {
  const { domain, item_id, rank } = item || {};
  return { event, domain, item_id, rank, recommendation_id: (recommendation || {}).recommendation_id };
}

/** localStorage, or null where it is switched off: merely to look at it throws then. */
function openStorage() {
  try {
    return window.localStorage;
  } catch {
    return null;
  }
}

/** @param {Partial<Event>[]} events @param {string} reason */
function warnOfDropped(events, reason) {
  console.warn(`recommend.js: ${events.length} events dropped: ${reason}`);
}

/**
 * A UUID of version 7 (RFC 9562). `crypto.randomUUID` is only there in pages with TLS; `getRandomValues` in all.
 *
 * @returns {string}
 */
function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  for (let place = 5, ms = Date.now(); place >= 0; place -= 1, ms = Math.floor(ms / 256)) bytes[place] = ms % 256;
  bytes[6] = 0x70 | (bytes[6] & 0x0f); // version
  bytes[8] = 0x80 | (bytes[8] & 0x3f); // variant
  const digits = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return digits.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}
