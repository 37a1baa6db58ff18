// Two members of a running network, driven with the SDK that applications of
// this field already use. ALICE and BOB are the URLs of their APIs.
import assert from "node:assert/strict";
import { randomBytes, randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { after, test } from "node:test";
import sdk from "@hyperledger/firefly-sdk";

const FireFly = sdk.default;
const driven = new Set(); // the methods that have succeeded

// connect makes a client that notes which of its methods succeed. Tests count
// only with what they assert of the results; see the last one.
function connect(host) {
  const client = new FireFly({ host, websocket: { reconnectDelay: 100 } });
  return new Proxy(client, {
    get(_, name) {
      const member = client[name];
      if (typeof member !== "function") return member;
      return (...args) => {
        const result = member.apply(client, args);
        if (!(result instanceof Promise)) {
          driven.add(name);
          return result;
        }
        return result.then((value) => {
          driven.add(name);
          return value;
        });
      };
    },
  });
}

const alice = connect(process.env.ALICE);
const bob = connect(process.env.BOB);
const bobName = process.env.BOB_ORG;
const confirm = { confirm: true };
const topic = randomUUID();

const sockets = [];
after(() => sockets.forEach((s) => s.close()));

// listen collects the events that a subscription delivers. The SDK acknowledges
// each when this has returned, and filters an ephemeral one by type only.
function listen(client, subscription) {
  const seen = [];
  const waiting = [];
  const socket = client.listen(subscription, (_, event) => {
    if (event.id) {
      seen.push(event);
      waiting.forEach((check) => check());
    } else {
      assert.fail(`the node refused: ${JSON.stringify(event)}`);
    }
  });
  sockets.push(socket);
  // Resolves with the first event that fits.
  const first = (fits) =>
    new Promise((resolve) => {
      const check = () => {
        const found = seen.find(fits);
        if (found) resolve(found);
      };
      waiting.push(check);
      check();
    });
  return { seen, first, socket };
}

const bobsDurable = { name: `durable-${topic}`, options: { firstEvent: "newest" }, filter: { topic } };
let bobs; // the stream of that subscription

test("status and namespaces", async () => {
  const status = await alice.getStatus();
  assert.equal(status.multiparty.enabled, true);
  assert.equal(status.org.registered, true);
  assert.equal(status.node.registered, true);
  const namespaces = await alice.getNamespaces();
  assert.deepEqual(namespaces.map((n) => n.name), ["default"]);
  assert.equal((await alice.getNamespace("default")).name, "default");
});

test("organisations, nodes, identities, verifiers", async () => {
  const orgs = await alice.getOrganizations();
  assert.ok(orgs.length >= 2);
  const other = await alice.getOrganization(bobName);
  assert.equal(other.did, `did:firefly:org/${bobName}`);
  assert.ok((await alice.getNodes()).length >= 2);
  const identity = await alice.getIdentity(other.id, {});
  assert.equal(identity.name, bobName);
  assert.equal((await alice.getIdentity(other.did)).id, other.id);
  const node = await alice.getNode((await bob.getStatus()).node.name);
  assert.equal(node.parent, other.id);
  assert.ok(node.profile.id);
  const verifiers = await alice.getVerifiers("default");
  assert.ok(verifiers.some((v) => v.type === "ethereum_address" && v.identity === other.id));
  const value = verifiers.find((v) => v.identity === other.id).value;
  assert.deepEqual(await alice.resolveVerifier({ value: value.slice(2).toUpperCase() }), { type: "ethereum_address", value });
});

test("a subscription is replaced, listed and deleted", async () => {
  const sub = await bob.replaceSubscription(bobsDurable);
  assert.equal(sub.name, bobsDurable.name);
  assert.ok((await bob.getSubscriptions({ name: bobsDurable.name })).length === 1);
});

test("a broadcast reaches the other member over a durable subscription", async () => {
  bobs = listen(bob, bobsDurable.name);
  const sent = await alice.sendBroadcast({ header: { topics: [topic], tag: "hello" }, data: [{ value: { greeting: "hello" } }] }, confirm);
  assert.equal(sent.state, "confirmed");
  const event = await bobs.first((e) => e.type === "message_confirmed" && e.message?.header.id === sent.header.id);
  assert.equal(event.message.header.author, (await alice.getStatus()).org.did);
  const data = await bob.getData(event.message.data[0].id);
  assert.deepEqual(data.value, { greeting: "hello" });
  const [listed] = await bob.getMessages({ id: sent.header.id });
  assert.equal(listed.header.tag, "hello");
  assert.equal(listed.hash, sent.hash);
});

test("a private message and its reply, over an ephemeral subscription", async () => {
  const stream = listen(alice, { filter: { events: "message_confirmed" } });
  const sent = await alice.sendPrivateMessage(
    { header: { topics: [topic] }, group: { members: [{ identity: bobName }] }, data: [{ value: "for you" }] },
    confirm,
  );
  assert.equal(sent.header.type, "private");
  await stream.first((e) => e.reference === sent.header.id);
  const group = await bob.getGroup(sent.header.group);
  assert.equal(group.members.length, 2);
  const reply = await bob.sendPrivateMessage(
    { header: { topics: [topic], cid: sent.header.id, group: sent.header.group }, data: [{ value: "and back" }] },
    confirm,
  );
  await stream.first((e) => e.reference === reply.header.id);
  const [found] = await alice.getMessages({ cid: sent.header.id });
  assert.equal(found.header.id, reply.header.id);
});

// read collects a stream.
async function read(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return Buffer.concat(chunks);
}

test("data and blobs, both ways", async () => {
  const value = await alice.uploadData({ value: { a: 1 } });
  assert.deepEqual((await alice.getData(value.id)).value, { a: 1 });
  const scan = randomBytes(1_300_000);
  const blob = await alice.uploadDataBlob(scan, { filename: "scan.bin" });
  assert.equal(blob.blob.size, scan.length);
  assert.deepEqual(Object.keys(blob.value).sort(), ["filename", "mimetype"]);
  const sent = await alice.sendPrivateMessage(
    { header: { topics: [topic] }, group: { members: [{ identity: bobName }] }, data: [{ id: value.id }, { id: blob.id }] },
    confirm,
  );
  // Confirmed here and confirmed there are not the same moment.
  await bobs.first((e) => e.reference === sent.header.id);
  assert.ok(scan.equals(await read(await bob.getDataBlob(blob.id))));
  const found = await bob.findData({ id: blob.id });
  assert.equal(found[0].blob.name, "scan.bin");
  assert.equal(found[0].hash, blob.hash);

  const answer = randomBytes(300_000);
  const stream = listen(alice, { filter: { events: "message_confirmed" } });
  const back = await bob.uploadDataBlob(answer, { filename: "answer.bin" }, { autometa: "false", metadata: JSON.stringify({ name: "out/answer.bin" }) });
  assert.equal(back.blob.name, "out/answer.bin");
  const replied = await bob.sendPrivateMessage(
    { header: { topics: [topic], cid: sent.header.id, group: sent.header.group }, data: [{ id: back.id }] },
    confirm,
  );
  await stream.first((e) => e.reference === replied.header.id);
  assert.ok(answer.equals(await read(await alice.getDataBlob(back.id))));

  const gone = await alice.uploadData({ value: "short-lived" });
  await alice.deleteData(gone.id);
  assert.equal(await alice.getData(gone.id), undefined);
});

test("what one member publishes, the other reads by its reference", async () => {
  const content = randomBytes(100_000);
  const blob = await alice.uploadDataBlob(content, { filename: "public.bin" });
  const published = await alice.publishDataBlob(blob.id);
  assert.match(published.blob.public, /^bafkrei/);
  const value = await alice.uploadData({ value: { open: topic } });
  const shown = await alice.publishData(value.id);
  assert.match(shown.public, /^bafkrei/);
  assert.equal((await alice.findData({ public: shown.public }))[0].id, value.id);
  for (const [reference, bytes] of [[published.blob.public, content], [shown.public, Buffer.from(JSON.stringify({ open: topic }))]]) {
    const response = await fetch(`${process.env.BOB}/api/v1/published/${reference}`);
    assert.equal(response.status, 200);
    assert.ok(bytes.equals(Buffer.from(await response.arrayBuffer())));
  }
  const [transaction] = await alice.getTransactions({ type: "data_publish", limit: "1" });
  const [operation] = await alice.getOperations({ tx: transaction.id });
  assert.equal(operation.type, "sharedstorage_upload_value");
  assert.equal(operation.status, "Succeeded");
  // The SDK passes no key with a publication; a program that does gets an error.
  const again = () =>
    fetch(`${process.env.ALICE}/api/v1/data/${value.id}/value/publish`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ idempotencyKey: `publish-${topic}` }),
    });
  assert.equal((await again()).status, 200);
  const refused = await again();
  assert.equal(refused.status, 409);
  assert.match((await refused.json()).error, /^FF10431/);
});

test("a request is answered by its reply", async () => {
  const tag = `ask-${topic}`;
  const requests = listen(bob, { filter: { events: "message_confirmed" } });
  const asked = alice.sendPrivateMessage(
    { header: { tag, topics: [topic] }, group: { members: [{ identity: bobName }] }, data: [{ value: "how much?" }] },
    { requestReply: true },
  );
  const { message } = await requests.first((e) => e.message?.header.tag === tag);
  await bob.sendPrivateMessage({ header: { topics: [topic], cid: message.header.id, group: message.header.group }, data: [{ value: { much: 7 } }] });
  const reply = await asked;
  assert.equal(reply.header.cid, message.header.id);
  assert.deepEqual(reply.data[0].value, { much: 7 });
});

test("a stream that broke off goes on: the durable one without a gap, the ephemeral one from then on", async () => {
  const name = `broken-${topic}`;
  const sub = await bob.replaceSubscription({ name, options: { firstEvent: "newest", readAhead: 10 }, filter: { topic, events: "message_confirmed" } });
  const durable = listen(bob, name);
  const passing = listen(bob, { filter: { events: "message_confirmed" } });
  const say = (n) => alice.sendBroadcast({ header: { topics: [topic] }, data: [{ value: n }] }, confirm);
  const before = await say(1);
  await durable.first((e) => e.reference === before.header.id);
  await passing.first((e) => e.reference === before.header.id);

  // Both lose their connection; what comes meanwhile waits for the durable one.
  for (const stream of [durable, passing]) stream.socket.socket.terminate();
  const during = await say(2);
  await durable.first((e) => e.reference === during.header.id);
  let later;
  for (let n = 3; !later; n++) {
    // The SDK does not tell when an ephemeral subscription has begun again.
    const sent = await say(n);
    await durable.first((e) => e.reference === sent.header.id);
    later = passing.seen.find((e) => e.reference === sent.header.id);
  }
  const sequences = durable.seen.map((e) => e.sequence);
  assert.deepEqual([...new Set(sequences)], [...sequences].sort((a, b) => a - b), "in order, none twice but unacknowledged ones");
  const status = await fetch(`${process.env.BOB}/api/v1/subscriptions/${sub.id}?fetchstatus`);
  assert.ok((await status.json()).status.currentOffset >= sequences[0]);
  for (const stream of [durable, passing]) stream.socket.close();
  await bob.deleteSubscription(sub.id);
});

test("several consumers of one subscription: one is served, the other takes over", async () => {
  const name = `shared-${topic}`;
  const sub = await bob.replaceSubscription({ name, options: { firstEvent: "newest" }, filter: { topic, events: "message_confirmed" } });
  const one = listen(bob, name);
  const say = (n) => alice.sendBroadcast({ header: { topics: [topic] }, data: [{ value: n }] }, confirm);
  const first = await say("first");
  await one.first((e) => e.reference === first.header.id);
  const two = listen(bob, name);
  const second = await say("second");
  await one.first((e) => e.reference === second.header.id);
  one.socket.close();
  const third = await say("third");
  await two.first((e) => e.reference === third.header.id);
  assert.ok(!two.seen.some((e) => e.reference === first.header.id), "what one consumer acknowledged comes to no other");
  two.socket.close();
  await bob.deleteSubscription(sub.id);
});

test("events in batches", async () => {
  const name = `batch-${topic}`;
  const sub = await bob.replaceSubscription({ name, options: { firstEvent: "oldest", batch: true, batchTimeout: "100ms" }, filter: { topic, events: "message_confirmed" } });
  const stream = listen(bob, name);
  const batch = await stream.first((e) => e.type === "event_batch");
  assert.ok(batch.events.length > 1);
  assert.equal(batch.subscription.name, name);
  assert.ok(batch.events.every((e) => e.type === "message_confirmed" && e.message.header.topics.includes(topic)));
  stream.socket.close();
  await bob.deleteSubscription(sub.id);
});

test("a datatype, and a value that breaks it", async () => {
  const name = `t-${randomUUID().slice(0, 8)}`;
  const schema = { type: "object", properties: { amount: { type: "integer" } }, required: ["amount"] };
  await alice.createDatatype({ name, version: "1.0.0", value: schema }, confirm);
  assert.deepEqual((await alice.getDatatype(name, "1.0.0")).value, schema);
  assert.equal((await alice.getDatatypes({ name })).length, 1);
  const datatype = { name, version: "1.0.0" };
  const sent = await alice.sendBroadcast({ header: { topics: [topic] }, data: [{ datatype, value: { amount: 7 } }] }, confirm);
  await bobs.first((e) => e.reference === sent.header.id);
  assert.deepEqual((await bob.getData(sent.data[0].id)).datatype, datatype);
  const members = { group: { members: [{ identity: bobName }] } };
  const secret = await alice.sendPrivateMessage({ header: { topics: [topic] }, ...members, data: [{ datatype, value: { amount: 8 } }] }, confirm);
  await bobs.first((e) => e.reference === secret.header.id);
  const wrong = { data: [{ datatype, value: { amount: "seven" } }] };
  await assert.rejects(alice.sendBroadcast(wrong), /FF10198/);
  await assert.rejects(alice.sendPrivateMessage({ ...members, ...wrong }), /FF10198/);
  await assert.rejects(alice.sendBroadcast({ data: [{ datatype: { name, version: "9" }, value: {} }] }), /FF10195/);
});

test("an idempotency key counts once", async () => {
  const message = { idempotencyKey: randomUUID(), header: { topics: [topic] }, data: [{ value: 1 }] };
  await alice.sendBroadcast(message);
  const told = [];
  alice.onError((e) => told.push(e));
  await assert.rejects(alice.sendBroadcast(message), (e) => e instanceof sdk.FireFlyIdempotencyError && /FF10430/.test(e.message) && e.originalError.response.status === 409);
  assert.equal(told.length, 1);
});

test("a custom identity", async () => {
  const name = `desk-${randomUUID().slice(0, 8)}`;
  const parent = (await alice.getStatus()).org.id;
  await alice.createIdentity({ name, parent, key: (await alice.getStatus()).org.verifiers[0].value }, confirm);
  const [made] = await alice.getIdentities({ name });
  assert.equal(made.parent, parent);
  const sent = await alice.sendBroadcast({ header: { topics: [topic], author: made.did }, data: [{ value: 1 }] }, confirm);
  assert.equal(sent.header.author, made.did);
  const updated = await alice.updateIdentity(made.id, { description: "the desk", profile: { floor: 3 } }, confirm);
  assert.equal(updated.description, "the desk");
  assert.deepEqual((await alice.getIdentity(made.id)).profile, { floor: 3 });
});

test("batches, operations and transactions of what was sent", async () => {
  assert.ok((await alice.getBatches({ limit: "5" })).length > 0);
  const operations = await alice.getOperations({ type: "blockchain_pin_batch", limit: "5" });
  assert.ok(operations.length > 0);
  const transaction = await alice.getTransaction(operations[0].tx);
  assert.equal(transaction.type, "batch_pin");
  const [chained] = await alice.getBlockchainEvents({ "tx.id": transaction.id });
  assert.equal((await alice.getBlockchainEvent(chained.id)).name, "BatchPin");
  assert.deepEqual(transaction.blockchainIds, [chained.tx.blockchainId]);
});

test("an operation is retried as another one", async () => {
  const [sending] = await alice.getOperations({ type: "dataexchange_send_batch", status: "Succeeded", limit: "1" });
  const fresh = await alice.retryOperation(sending.id);
  assert.notEqual(fresh.id, sending.id);
  assert.equal((await alice.getOperation(sending.id)).retry, fresh.id);
  // Sending what the other has already is answered at once.
  let now;
  do {
    now = await alice.getOperation(fresh.id);
  } while (now.status === "Pending");
  assert.equal(now.status, "Succeeded");
  assert.equal(now.tx, sending.tx);
});

test("what is not there is undefined, as the SDK expects", async () => {
  assert.equal(await alice.getMessage(randomUUID()), undefined);
  assert.equal(await alice.getData(randomUUID()), undefined);
  await bob.deleteSubscription((await bob.getSubscriptions({ name: bobsDurable.name }))[0].id);
  assert.equal((await bob.getSubscriptions({ name: bobsDurable.name })).length, 0);
});

// The sample contract of the gateway's tests, driven from deployment to events.
const artifact = (name) => readFileSync(new URL(`../../internal/contract/contracttest/${name}`, import.meta.url), "utf8");

test("contracts: deploy, interface, API, invoke, query, listener", async () => {
  const abi = JSON.parse(artifact("Sample.abi"));
  const response = await fetch(`${process.env.ALICE}/api/v1/contracts/deploy?confirm=true`, { // the SDK on npm has no method for it
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ definition: abi, contract: artifact("Sample.bin").trim(), input: ["7"] }),
  });
  const deployed = await response.json();
  assert.equal(deployed.status, "Succeeded", JSON.stringify(deployed));
  const location = deployed.output.contractLocation;
  assert.match(location.address, /^0x[0-9a-f]{40}$/);

  const name = `sample-${randomUUID().slice(0, 8)}`;
  const generated = await alice.generateContractInterface({ name, version: "1.0.0", input: { abi } });
  assert.ok(generated.methods.some((m) => m.pathname === "set_1"));
  const ffi = await alice.createContractInterface(generated, { confirm: true, publish: true });
  assert.equal(ffi.published, true);
  const [listed] = await alice.getContractInterfaces({ name });
  assert.equal(listed.methods, undefined);
  assert.ok((await alice.getContractInterface(ffi.id, true)).events.some((e) => e.signature === "Changed(address,uint256)"));

  const api = await alice.createContractAPI({ name, interface: { id: ffi.id }, location }, { confirm: true, publish: true });
  assert.equal((await alice.getContractAPI(name)).id, api.id);
  assert.ok((await alice.getContractAPIs({ name })).length === 1);
  const document = await (await fetch(api.urls.openapi)).json();
  assert.ok(document.paths["/invoke/set"].post);

  const listener = await alice.createContractAPIListener(name, "Changed", { topic, name: `l-${name}`, options: { firstEvent: "oldest" } });
  assert.equal(listener.event.name, "Changed");
  assert.equal((await alice.getContractAPIListeners(name, "Changed")).length, 1);
  assert.ok((await alice.getContractListeners({ name: `l-${name}` })).length === 1);
  const stream = listen(alice, { filter: { events: "blockchain_event_received" } });

  const op = await alice.invokeContractAPI(name, "set", { input: { x: "42" } }, confirm);
  assert.equal(op.type, "blockchain_invoke");
  assert.equal((await alice.getOperation(op.id)).status, "Succeeded");
  const event = await stream.first((e) => e.blockchainEvent?.listener === listener.id);
  assert.equal(event.blockchainEvent.output.value, "42");
  assert.equal(event.blockchainEvent.tx.id, op.tx);
  assert.equal((await alice.queryContractAPI(name, "value", {})).output, "42");

  // The other member knows the published definitions, and the same chain.
  await until(async () => (await bob.getContractAPIs({ name })).length === 1);
  assert.equal((await bob.queryContractAPI(name, "value", {})).output, "42");
  await bob.invokeContractAPI(name, "set", { input: { x: 43 } }, confirm);
  const inline = { location, method: ffi.methods.find((m) => m.name === "value"), input: {} };
  assert.equal((await alice.queryContract(inline)).output, "43");
  await alice.invokeContract({ location, interface: ffi.id, methodPath: "set_1", input: { x: 44, why: "because" } }, confirm);
  assert.equal((await alice.queryContract(inline)).output, "44");

  await assert.rejects(alice.invokeContractAPI(name, "set", { input: { x: 13 } }, confirm), /FF10111.*thirteen brings bad luck/);
  await assert.rejects(alice.invokeContractAPI(name, "set", { input: { x: 1001 } }), /FF10111.*TooHigh\(value=1001, most=1000\)/);
  const once = { idempotencyKey: randomUUID(), input: { x: 1 } };
  await alice.invokeContractAPI(name, "set", once);
  await assert.rejects(alice.invokeContractAPI(name, "set", once), (e) => e.name === "FireFlyIdempotencyError" || /FF10431/.test(e.message));
  await alice.deleteContractListener(listener.id);
  assert.equal(await alice.getContractAPI("no-such-api"), undefined);
});

// until waits for what another member has yet to hear of.
async function until(holds) {
  const end = Date.now() + 20_000;
  while (!(await holds())) {
    assert.ok(Date.now() < end, "it does not come");
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

test("every method of the installed package was driven", () => {
  const methods = [...Object.getOwnPropertyNames(FireFly.prototype), "onError"].filter((name) => name !== "constructor");
  assert.ok(methods.length > 50);
  // There are no tokens.
  const own = methods.filter((name) => !/Token/.test(name));
  assert.deepEqual(own.filter((name) => !driven.has(name)), []);
});
