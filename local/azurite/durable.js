"use strict";
// Loaded before Azurite (`node --require durable.js azurite.js`): what it has acknowledged is there after `kill -9`.
//
// Azurite keeps its metadata (names, ETags, leases, which bytes are whose; messages of queues) in memory and saves all of
// it every five seconds. Killed in between, it has forgotten blobs that it had confirmed, and remembers deleted ones.
// Here every change goes to a journal beside the database before the answer to its request, and what a journal holds
// is done again when the database is loaded. A save begins a new journal and, when it is on the disk, removes
// the old ones. The bytes of blobs need none of this: Azurite flushes them itself before it notes them.
//
// All changes of one step of a request (a blob that replaces another is two) are one line: whole, or not there.
// Leases outlive a restart as well; Azurite alone forgets when they end.
// A journal that cannot be written ends the process: an answer that might be forgotten is never given.

const fs = require("fs");
const path = require("path");
const Loki = require("lokijs");

const DATES = ["leaseExpireTime", "leaseBreakTime", "expirationTime"]; // compared with dates, and loaded as text by Azurite
const FLUSH_MS = 50; // what an operating system that crashes, or a machine without power, may cost
const databases = new WeakMap(); // collection -> its database
const journals = new WeakMap(); // database -> its journal

class Journal {
  constructor(database) {
    this.folder = path.dirname(path.resolve(database));
    this.prefix = `${path.basename(database)}.journal.`;
    this.number = Math.max(0, ...this.numbers());
    this.file = undefined;
    this.changes = [];
    this.timer = undefined;
  }

  numbers() {
    let names = [];
    try {
      names = fs.readdirSync(this.folder);
    } catch (error) {
      if (error.code !== "ENOENT") throw error;
    }
    const mine = names.filter((name) => name.startsWith(this.prefix));
    return mine.map((name) => Number(name.slice(this.prefix.length))).sort((a, b) => a - b);
  }

  where(number) {
    return path.join(this.folder, this.prefix + number);
  }

  note(change) {
    // Text now: the document may change again within this step. Before the answer: it is given in a later microtask.
    if (this.changes.push(JSON.stringify(change)) === 1) queueMicrotask(() => this.write());
  }

  write() {
    if (!this.changes.length) return;
    const line = Buffer.from(`[${this.changes.join(",")}]\n`);
    this.changes = [];
    try {
      if (this.file === undefined) this.file = fs.openSync(this.where(this.number), "a", 0o600);
      for (let at = 0; at < line.length; ) at += fs.writeSync(this.file, line, at);
    } catch (error) {
      console.error(`Azurite ends: a change cannot be written to ${this.where(this.number)}: ${error.message}`);
      process.exit(1);
    }
    this.timer ??= setTimeout(() => this.flush(), FLUSH_MS).unref();
  }

  flush() {
    this.timer = undefined;
    if (this.file !== undefined) fs.fdatasync(this.file, () => {});
  }

  // From now on into a new journal; gives the number of the last one that a save makes superfluous.
  turn() {
    this.write();
    if (this.file !== undefined) fs.closeSync(this.file);
    this.file = undefined;
    return this.number++;
  }

  drop(last) {
    for (const number of this.numbers()) if (number <= last) fs.rmSync(this.where(number), { force: true });
  }

  // Every change that was written, oldest first. The last line of a journal may be torn: it was not answered.
  *read() {
    for (const number of this.numbers()) {
      const lines = fs.readFileSync(this.where(number), "utf8").split("\n");
      lines.pop();
      for (const line of lines) yield* JSON.parse(line);
    }
  }
}

function note(collection, kind, value) {
  const journal = journals.get(databases.get(collection));
  if (journal) journal.note([collection.name, kind, value]);
}

function replay(database, journal) {
  const found = new Map(); // collection -> its documents by id
  for (const [name, kind, value] of journal.read()) {
    const collection = database.getCollection(name);
    if (!collection) throw new Error(`${journal.prefix}*: there is no collection ${name}; was the database replaced?`);
    if (!found.has(collection)) found.set(collection, new Map(collection.data.map((doc) => [doc.$loki, doc])));
    const documents = found.get(collection);
    if (kind === "put") documents.set(value.$loki, value);
    else for (const id of value) documents.delete(id);
    const newest = kind === "put" ? value.$loki : Math.max(0, ...value);
    collection.maxId = Math.max(collection.maxId || 0, newest);
  }
  for (const [collection, documents] of found) {
    collection.data = [...documents.values()].sort((a, b) => a.$loki - b.$loki); // as LokiJS looks them up
    collection.ensureId();
    collection.constraints.unique = {};
    collection.ensureAllIndexes(true);
    collection.dirty = true;
  }
}

// Else every lease is over after a restart: a date is neither before nor after a text.
function revive(database) {
  for (const collection of database.collections) {
    for (const doc of collection.data) {
      for (const name of DATES) if (typeof doc[name] === "string") doc[name] = new Date(doc[name]);
    }
  }
}

function around(prototype, name, make) {
  const original = prototype[name];
  if (typeof original !== "function") throw new Error(`durable.js: LokiJS has no ${name}; it was written for 1.5.12`);
  prototype[name] = make(original);
}

around(Loki.Collection.prototype, "insertOne", (original) => function insertOne(...given) {
  const inserted = original.apply(this, given);
  if (inserted) note(this, "put", inserted);
  return inserted;
});

around(Loki.Collection.prototype, "update", (original) => function update(doc) {
  const updated = original.call(this, doc);
  if (!Array.isArray(doc)) note(this, "put", updated); // of an array, each document comes by itself
  return updated;
});

around(Loki.Collection.prototype, "remove", (original) => function remove(doc) {
  const id = typeof doc === "number" ? doc : doc && !Array.isArray(doc) ? doc.$loki : undefined;
  const removed = original.call(this, doc);
  if (id !== undefined && removed) note(this, "delete", [id]); // an array is removed by positions, below
  return removed;
});

around(Loki.Collection.prototype, "removeBatchByPositions", (original) => function removeBatchByPositions(positions) {
  const ids = positions.map((position) => this.data[position].$loki);
  const removed = original.call(this, positions);
  if (ids.length) note(this, "delete", ids);
  return removed;
});

around(Loki.Collection.prototype, "clear", () => function clear() {
  throw new Error("durable.js: Collection.clear is not journaled; Azurite 3.37 does not use it");
});

around(Loki.prototype, "addCollection", (original) => function addCollection(...given) {
  const collection = original.apply(this, given);
  databases.set(collection, this);
  return collection;
});

around(Loki.prototype, "loadDatabaseInternal", (original) => function loadDatabaseInternal(options, callback) {
  original.call(this, options, (error) => {
    if (!error) {
      try {
        replay(this, new Journal(this.filename));
        revive(this);
      } catch (failure) {
        return callback(failure);
      }
    }
    return callback(error);
  });
});

around(Loki.prototype, "saveDatabaseInternal", (original) => function saveDatabaseInternal(callback) {
  if (this.persistenceMethod === "memory") return original.call(this, callback);
  if (!journals.has(this)) journals.set(this, new Journal(this.filename)); // the first save comes before any request
  const journal = journals.get(this);
  const last = journal.turn();
  // What is saved is serialised before this returns: later changes are in the new journal.
  return original.call(this, (error) => {
    if (error) {
      for (const collection of this.collections) collection.dirty = true; // LokiJS would not try again by itself
      console.error(`${this.filename} is not saved, its journal is kept: ${error.message || error}`);
      return callback && callback(error);
    }
    return fs.open(this.filename, "r", (failure, file) => {
      if (failure) return callback && callback(failure);
      return fs.fsync(file, (unsynced) => {
        fs.closeSync(file);
        if (!unsynced) journal.drop(last);
        if (callback) callback(unsynced);
      });
    });
  });
});
