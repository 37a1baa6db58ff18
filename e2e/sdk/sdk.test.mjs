// Two members of a running network, driven with the SDK that applications of
// this field already use. ALICE and BOB are the URLs of their APIs.
import assert from "node:assert/strict";
import { randomBytes, randomUUID } from "node:crypto";
import { after, test } from "node:test";
import sdk from "@hyperledger/firefly-sdk";

const FireFly = sdk.default;
const alice = new FireFly({ host: process.env.ALICE });
const bob = new FireFly({ host: process.env.BOB });
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
  const verifiers = await alice.getVerifiers("default");
  assert.ok(verifiers.some((v) => v.type === "ethereum_address" && v.identity === other.id));
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

test("data, a blob and its download at the other member", async () => {
  const value = await alice.uploadData({ value: { a: 1 } });
  assert.deepEqual((await alice.getData(value.id)).value, { a: 1 });
  const content = randomBytes(300_000);
  const blob = await alice.uploadDataBlob(content, { filename: "scan.bin" });
  assert.equal(blob.blob.size, content.length);
  const sent = await alice.sendPrivateMessage(
    { header: { topics: [topic] }, group: { members: [{ identity: bobName }] }, data: [{ id: value.id }, { id: blob.id }] },
    confirm,
  );
  // Confirmed here and confirmed there are not the same moment.
  await bobs.first((e) => e.reference === sent.header.id);
  const chunks = [];
  for await (const chunk of await bob.getDataBlob(blob.id)) chunks.push(chunk);
  assert.ok(content.equals(Buffer.concat(chunks)));
  const found = await bob.findData({ id: blob.id });
  assert.equal(found[0].blob.name, "scan.bin");
});

test("a datatype, and a value that breaks it", async () => {
  const name = `t-${randomUUID().slice(0, 8)}`;
  const schema = { type: "object", properties: { amount: { type: "integer" } }, required: ["amount"] };
  await alice.createDatatype({ name, version: "1.0.0", value: schema }, confirm);
  assert.deepEqual((await alice.getDatatype(name, "1.0.0")).value, schema);
  assert.equal((await alice.getDatatypes({ name })).length, 1);
  const datatype = { name, version: "1.0.0" };
  await alice.sendBroadcast({ header: { topics: [topic] }, data: [{ datatype, value: { amount: 7 } }] }, confirm);
  await assert.rejects(alice.sendBroadcast({ header: { topics: [topic] }, data: [{ datatype, value: { amount: "seven" } }] }), /FF10198/);
});

test("an idempotency key counts once", async () => {
  const message = { idempotencyKey: randomUUID(), header: { topics: [topic] }, data: [{ value: 1 }] };
  await alice.sendBroadcast(message);
  await assert.rejects(alice.sendBroadcast(message), (e) => e.name === "FireFlyIdempotencyError" || /FF10430/.test(e.message));
});

test("a custom identity", async () => {
  const name = `desk-${randomUUID().slice(0, 8)}`;
  const parent = (await alice.getStatus()).org.id;
  await alice.createIdentity({ name, parent, key: (await alice.getStatus()).org.verifiers[0].value }, confirm);
  const [made] = await alice.getIdentities({ name });
  assert.equal(made.parent, parent);
  const sent = await alice.sendBroadcast({ header: { topics: [topic], author: made.did }, data: [{ value: 1 }] }, confirm);
  assert.equal(sent.header.author, made.did);
});

test("batches, operations and transactions of what was sent", async () => {
  assert.ok((await alice.getBatches({ limit: "5" })).length > 0);
  const operations = await alice.getOperations({ type: "blockchain_pin_batch", limit: "5" });
  assert.ok(operations.length > 0);
  const transaction = await alice.getTransaction(operations[0].tx);
  assert.equal(transaction.type, "batch_pin");
});

test("what is not there is undefined, as the SDK expects", async () => {
  assert.equal(await alice.getMessage(randomUUID()), undefined);
  assert.equal(await alice.getData(randomUUID()), undefined);
  await bob.deleteSubscription((await bob.getSubscriptions({ name: bobsDurable.name }))[0].id);
  assert.equal((await bob.getSubscriptions({ name: bobsDurable.name })).length, 0);
});
