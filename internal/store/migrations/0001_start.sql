-- One dialect for SQLite and PostgreSQL. Three tokens differ and are replaced at
-- load: {{serial}} (an ascending key assigned in commit order), {{bytes}}, and
-- {{clustered}} (rows kept in the primary key itself, where that can be had).
-- Times are nanoseconds since 1970 UTC. Hashes and ids that the API shows are
-- lower-case text; those only the protocol uses are bytes.

CREATE TABLE meta (
  name  TEXT PRIMARY KEY,
  value TEXT NOT NULL
);

-- The processes that share the database ----------------------------------------
-- See standby.go. Empty with SQLite, and with one process.

CREATE TABLE processes (
  id      TEXT PRIMARY KEY,   -- new with each start
  name    TEXT NOT NULL,
  api     TEXT NOT NULL,
  lease   BIGINT NOT NULL,    -- nanoseconds of silence after which it is removed
  backend BIGINT NOT NULL,    -- the server's process id of its watching connection
  started BIGINT NOT NULL,
  seen    BIGINT NOT NULL     -- its last beat
);

CREATE TABLE lease (
  one     BIGINT PRIMARY KEY, -- 1: there is one row
  term    BIGINT NOT NULL,
  process TEXT NOT NULL,      -- the active one; of no process if it left
  since   BIGINT NOT NULL
);

-- Which process delivers a subscription that an application is connected for.
CREATE TABLE consumers (
  subscription TEXT PRIMARY KEY,
  process      TEXT NOT NULL
);

-- The ledger as this node has read it -----------------------------------------

-- Every record of the network contract except the bodies of pins.
CREATE TABLE records (
  number     BIGINT PRIMARY KEY,
  running    {{bytes}} NOT NULL,
  block      BIGINT NOT NULL,
  log        BIGINT NOT NULL,
  block_hash {{bytes}} NOT NULL,
  block_time BIGINT NOT NULL,
  tx_hash    {{bytes}} NOT NULL,
  signer     {{bytes}} NOT NULL,
  kind       TEXT NOT NULL,
  body       TEXT NOT NULL -- JSON; empty for a pin, whose body is in pins
);
CREATE INDEX records_block ON records (block);
CREATE INDEX records_tx ON records (tx_hash);
CREATE INDEX records_kind ON records (kind, number);

-- Every pin, also of audiences this node does not belong to. The columns from
-- audience on are the confirm loop's findings.
CREATE TABLE pins (
  number    BIGINT PRIMARY KEY, -- = records.number
  org       {{bytes}} NOT NULL,
  root      {{bytes}} NOT NULL,
  tag       {{bytes}} NOT NULL,
  handles   {{bytes}} NOT NULL, -- 16 bytes each
  control   {{bytes}} NOT NULL,
  via       {{bytes}} NOT NULL,
  audience  {{bytes}},
  epoch     BIGINT,
  n         BIGINT,
  state     TEXT NOT NULL DEFAULT '', -- '' not ours (yet), open, done, void, duplicate, control
  reason    TEXT NOT NULL DEFAULT '',
  entry     {{bytes}}, -- JSON of order.Entry
  exposed   BOOLEAN NOT NULL DEFAULT FALSE -- decided, but votes are pinned against it
);
CREATE INDEX pins_tag ON pins (tag);
CREATE INDEX pins_audience ON pins (audience, number);
CREATE INDEX pins_batch ON pins (root, org);
CREATE INDEX pins_open ON pins (audience, number) WHERE state = 'open';
CREATE INDEX pins_exposed ON pins (audience, number) WHERE exposed;

-- One row per context handle of a pin, as existing clients list pins.
CREATE TABLE pin_handles (
  sequence   BIGINT PRIMARY KEY, -- pins.number * 256 + idx
  namespace  TEXT NOT NULL,
  masked     BOOLEAN NOT NULL,
  hash       TEXT NOT NULL,
  batch      TEXT,
  batch_hash TEXT NOT NULL,
  idx        BIGINT NOT NULL,
  dispatched BOOLEAN NOT NULL,
  signer     TEXT NOT NULL,
  created    BIGINT NOT NULL
);
CREATE INDEX pin_handles_batch_hash ON pin_handles (batch_hash);

-- Audiences -------------------------------------------------------------------

-- The network and every group this node belongs to.
CREATE TABLE audiences (
  seq       {{serial}},
  id        {{bytes}} NOT NULL UNIQUE,
  kind      TEXT NOT NULL,          -- network, group
  name      TEXT NOT NULL,
  lookup    TEXT NOT NULL,          -- name and sorted members, to find an equal group
  created   BIGINT NOT NULL,
  begun     BIGINT,                 -- number of the pin that created it; null until then
  tended    BIGINT NOT NULL DEFAULT 0 -- up to this record about members nothing is left to do for its membership; 0 after a change
);
CREATE INDEX audiences_lookup ON audiences (lookup);
CREATE INDEX audiences_tended ON audiences (tended);

-- Epoch definitions that this node holds a secret for, or has seen activated.
CREATE TABLE epochs (
  audience   {{bytes}} NOT NULL,
  epoch      BIGINT NOT NULL,
  hash       {{bytes}} NOT NULL,
  definition {{bytes}} NOT NULL,
  secret     {{bytes}},             -- wire.EpochSecret in CBOR
  activated  BIGINT,                -- number of the activating pin; 0 for epoch 1 of the network
  PRIMARY KEY (audience, epoch, hash)
);
CREATE INDEX epochs_hash ON epochs (hash);

-- Who has told this node, which joined with an epoch, which pin made it current.
CREATE TABLE attestations (
  definition {{bytes}} NOT NULL,    -- epochs.hash
  org        {{bytes}} NOT NULL,
  pin        BIGINT NOT NULL,
  PRIMARY KEY (definition, org)
);

-- Which pin numbers of each key the ledger has shown (order.Window).
CREATE TABLE windows (
  audience {{bytes}} NOT NULL,
  epoch    BIGINT NOT NULL,
  signer   {{bytes}} NOT NULL,
  high     BIGINT NOT NULL,
  used     BIGINT NOT NULL,
  PRIMARY KEY (audience, epoch, signer)
);

-- The next pin number of each of our own keys.
CREATE TABLE counters (
  audience {{bytes}} NOT NULL,
  epoch    BIGINT NOT NULL,
  signer   {{bytes}} NOT NULL,
  next     BIGINT NOT NULL,
  PRIMARY KEY (audience, epoch, signer)
);

-- Batches ---------------------------------------------------------------------

CREATE TABLE batches (
  seq        {{serial}},
  id         TEXT NOT NULL,
  type       TEXT NOT NULL,         -- broadcast, private
  namespace  TEXT NOT NULL,
  node       TEXT,
  group_hash TEXT,
  created    BIGINT NOT NULL,
  author     TEXT NOT NULL,         -- DID
  key        TEXT NOT NULL,
  hash       TEXT NOT NULL,         -- root
  manifest   TEXT NOT NULL,
  tx_type    TEXT NOT NULL,
  tx_id      TEXT,
  confirmed  BIGINT,
  author_name TEXT NOT NULL,        -- as the batch header proves it
  org        {{bytes}} NOT NULL,
  root       {{bytes}} NOT NULL,
  audience   {{bytes}} NOT NULL,
  epoch      BIGINT NOT NULL,
  envelope   {{bytes}} NOT NULL,    -- wire.Envelope (pinned) or wire.Unpinned in CBOR
  own        BOOLEAN NOT NULL,
  state      TEXT NOT NULL,         -- own: collecting, pinning, done, dropped; received: held, done
  since      BIGINT NOT NULL,       -- when it entered the state
  receipt    {{bytes}},             -- our own receipt
  erased     BIGINT,                -- since when the envelope holds a wire.Remnant
  UNIQUE (root, org)
);
CREATE INDEX batches_work ON batches (state, seq) WHERE own AND state <> 'done';
CREATE INDEX batches_id ON batches (id);
CREATE INDEX batches_tx ON batches (tx_id);

-- Receipts for our batches, for batches we hold, and for epoch definitions.
CREATE TABLE receipts (
  root    {{bytes}} NOT NULL,
  author  {{bytes}} NOT NULL,
  org     {{bytes}} NOT NULL,
  receipt {{bytes}} NOT NULL,
  recent  BIGINT NOT NULL,          -- number of the recent block that it names
  known   BOOLEAN NOT NULL,         -- that block is on the ledger as it claims
  PRIMARY KEY (root, author, org)
);

-- Entries we voted to skip: an entry is receipted or voted against, never both.
CREATE TABLE votes (
  root     {{bytes}} NOT NULL,
  author   {{bytes}} NOT NULL,
  audience {{bytes}} NOT NULL,
  at       BIGINT NOT NULL,
  PRIMARY KEY (root, author, audience)
);

-- What the confirm loop has yet to look at: payloads, receipts, secrets.
CREATE TABLE arrivals (
  seq  {{serial}},
  what TEXT NOT NULL, -- payload, receipt, secret
  root {{bytes}} NOT NULL,
  org  {{bytes}} NOT NULL
);

-- Outward effects -------------------------------------------------------------

-- What each peer has yet to get; one row per peer and object.
CREATE TABLE outbox (
  id       {{serial}},
  peer     {{bytes}} NOT NULL,
  kind     TEXT NOT NULL,           -- payload, certificate, invite, unpinned, receipt
  root     {{bytes}} NOT NULL,
  org      {{bytes}} NOT NULL,
  op       TEXT,
  attempts BIGINT NOT NULL DEFAULT 0,
  due      BIGINT NOT NULL DEFAULT 0,
  since    BIGINT NOT NULL,
  error    TEXT NOT NULL DEFAULT '',
  UNIQUE (peer, kind, root, org)
);
CREATE INDEX outbox_peer ON outbox (peer, id);

-- Signed ledger transactions until they are final.
CREATE TABLE submissions (
  id       {{serial}},
  account  {{bytes}} NOT NULL,
  nonce    BIGINT,                  -- null while queued
  purpose  TEXT NOT NULL,           -- pin, control, node, proposal, vote, key
  root     {{bytes}} NOT NULL,      -- zero unless it pins a batch
  audience {{bytes}} NOT NULL,      -- zero unless it is a pin
  epoch    BIGINT NOT NULL,
  n        BIGINT NOT NULL,
  call     {{bytes}} NOT NULL,      -- what is called, to sign it again
  tx_hash  {{bytes}} NOT NULL,
  raw      {{bytes}} NOT NULL,
  bump     BIGINT NOT NULL DEFAULT 0,
  state    TEXT NOT NULL,           -- queued, signed, final, failed
  op       TEXT,
  created  BIGINT NOT NULL,
  error    TEXT NOT NULL DEFAULT '',
  UNIQUE (account, nonce)
);
CREATE INDEX submissions_work ON submissions (id) WHERE state IN ('queued', 'signed');
CREATE INDEX submissions_root ON submissions (root);
CREATE INDEX submissions_tx ON submissions (tx_hash);

-- What applications see -------------------------------------------------------

CREATE TABLE messages (
  seq             {{serial}},
  id              TEXT NOT NULL,
  cid             TEXT,
  type            TEXT NOT NULL,
  tx_type         TEXT NOT NULL,
  author          TEXT NOT NULL,
  key             TEXT NOT NULL,
  created         BIGINT NOT NULL,
  namespace       TEXT NOT NULL,
  group_hash      TEXT,
  topics          TEXT NOT NULL,    -- comma-joined
  tag             TEXT NOT NULL,
  datahash        TEXT NOT NULL,
  hash            TEXT NOT NULL,
  batch           TEXT,
  tx_id           TEXT,
  state           TEXT NOT NULL,
  confirmed       BIGINT,
  reject_reason   TEXT NOT NULL DEFAULT '',
  pins            TEXT NOT NULL DEFAULT '',
  idempotency_key TEXT,
  data            TEXT NOT NULL,    -- JSON: [{"id","hash"}]
  parent_type     TEXT,             -- txparent
  parent_id       TEXT,
  header          {{bytes}} NOT NULL, -- wire.MessageHeader in CBOR
  audience        {{bytes}} NOT NULL,
  org             {{bytes}} NOT NULL, -- author's organisation
  root            {{bytes}},          -- batch it is in
  idx             BIGINT,             -- place in the batch
  trace           TEXT NOT NULL DEFAULT '', -- traceparent of the request that made it
  erasure         TEXT                -- by which data of it was erased last
);
-- Indexes that end with namespace also count a namespace's rows without reading
-- the rows themselves.
CREATE INDEX messages_id ON messages (id, namespace);
CREATE INDEX messages_cid ON messages (cid) WHERE cid IS NOT NULL;
CREATE INDEX messages_ready ON messages (seq) WHERE state = 'ready';
-- No index of a long table begins with namespace: there are few, and a planner
-- without statistics would rather sort all rows of one than walk in order.
CREATE INDEX messages_order ON messages ((COALESCE(confirmed, 9223372036854775807)), created);
CREATE INDEX messages_created ON messages (created);
CREATE INDEX messages_definitions ON messages (org, tag) WHERE type = 'definition';
CREATE INDEX messages_batch ON messages (batch, idx) WHERE batch IS NOT NULL;
CREATE INDEX messages_group ON messages (group_hash, (COALESCE(confirmed, 9223372036854775807)), created) WHERE group_hash IS NOT NULL;
CREATE UNIQUE INDEX messages_idempotency ON messages (namespace, idempotency_key) WHERE idempotency_key IS NOT NULL;

CREATE TABLE data (
  seq              {{serial}},
  id               TEXT NOT NULL,
  validator        TEXT NOT NULL,
  namespace        TEXT NOT NULL,
  hash             TEXT NOT NULL,
  created          BIGINT NOT NULL,
  datatype_name    TEXT,
  datatype_version TEXT,
  value            TEXT,            -- JSON exactly as it is returned
  public           TEXT NOT NULL DEFAULT '',
  blob_hash        TEXT,
  blob_size        BIGINT,
  blob_name        TEXT,
  blob_path        TEXT,
  blob_public      TEXT,
  seed             {{bytes}} NOT NULL,
  datatype_hash    {{bytes}},
  blob_root        {{bytes}},
  commitment       {{bytes}} NOT NULL,
  erasure          TEXT             -- by which its content was erased
);
-- An item that is erased and comes again with another message is another row.
CREATE UNIQUE INDEX data_item ON data (id, commitment) WHERE erasure IS NULL;
CREATE INDEX data_commitment ON data (commitment);
CREATE INDEX data_blob ON data (blob_hash) WHERE blob_hash IS NOT NULL;
CREATE INDEX data_path ON data (namespace, blob_path) WHERE blob_path IS NOT NULL;
CREATE INDEX data_created ON data (created);

CREATE TABLE message_data (
  message BIGINT NOT NULL,          -- messages.seq
  idx     BIGINT NOT NULL,
  data    BIGINT NOT NULL,          -- data.seq
  PRIMARY KEY (message, idx)
){{clustered}};
CREATE INDEX message_data_data ON message_data (data);

CREATE TABLE blobs (
  hash    TEXT PRIMARY KEY,
  size    BIGINT NOT NULL,
  chunks  {{bytes}} NOT NULL,       -- 32 bytes each
  created BIGINT NOT NULL
);

-- Blobs that no data item refers to any more; the files are removed after it.
CREATE TABLE blob_removals (
  hash  TEXT PRIMARY KEY,
  since BIGINT NOT NULL
);

-- Retention and erasure ---------------------------------------------------------

-- One row for each act of erasing: who, when and why. What it erased refers to it.
CREATE TABLE erasures (
  seq       {{serial}},
  id        TEXT NOT NULL UNIQUE,
  namespace TEXT NOT NULL,
  source    TEXT NOT NULL,          -- operator, policy, member, before
  origin    TEXT NOT NULL,          -- id of the policy, or organisation of the member
  author    TEXT NOT NULL,          -- who
  reason    TEXT NOT NULL,
  created   BIGINT NOT NULL,
  messages  BIGINT NOT NULL,        -- how many it concerned
  data      BIGINT NOT NULL         -- how many items it erased
);
CREATE INDEX erasures_origin ON erasures (origin);

-- Signed requests to erase: ours to other members, and theirs to us.
CREATE TABLE erasure_requests (
  seq       {{serial}},
  id        TEXT NOT NULL UNIQUE,
  namespace TEXT NOT NULL,
  digest    {{bytes}} NOT NULL UNIQUE, -- wire.Erasure.Digest
  request   {{bytes}} NOT NULL,     -- wire.Erasure in CBOR
  org       {{bytes}} NOT NULL,     -- who asks
  own       BOOLEAN NOT NULL,
  root      {{bytes}} NOT NULL,
  state     TEXT NOT NULL,          -- ours: sent; theirs: asked, accepted, refused, erased
  note      TEXT NOT NULL,          -- why it is refused, or what it waits for
  erasure   TEXT,
  answer    {{bytes}},              -- our answer to theirs: wire.ErasureAnswer in CBOR
  created   BIGINT NOT NULL,
  updated   BIGINT NOT NULL
);
CREATE INDEX erasure_requests_open ON erasure_requests (seq) WHERE state = 'accepted';
CREATE INDEX erasure_requests_erasure ON erasure_requests (erasure);

-- What each member said to a request of ours.
CREATE TABLE erasure_answers (
  request {{bytes}} NOT NULL,       -- its digest
  org     {{bytes}} NOT NULL,
  state   TEXT NOT NULL,            -- waiting, erased, refused
  reason  TEXT NOT NULL,
  answer  {{bytes}},                -- wire.ErasureAnswer in CBOR
  at      BIGINT NOT NULL,
  PRIMARY KEY (request, org)
);

-- Legal holds. What one of them covers is not erased until it is lifted.
CREATE TABLE holds (
  seq       {{serial}},
  id        TEXT NOT NULL UNIQUE,
  namespace TEXT NOT NULL,
  kind      TEXT NOT NULL,          -- message, topic, group, author
  value     TEXT NOT NULL,
  reason    TEXT NOT NULL,
  author    TEXT NOT NULL,          -- who set it
  created   BIGINT NOT NULL,
  lifted    BIGINT,
  lifter    TEXT NOT NULL DEFAULT ''
);

CREATE TABLE retention_policies (
  seq        {{serial}},
  id         TEXT NOT NULL UNIQUE,
  namespace  TEXT NOT NULL,
  topic      TEXT NOT NULL,         -- empty: any
  datatype   TEXT NOT NULL,         -- name, or name/version; empty: any
  group_hash TEXT NOT NULL,         -- empty: any
  age        BIGINT NOT NULL,       -- nanoseconds since the verdict
  recipients BOOLEAN NOT NULL,      -- ask the receivers of our messages to erase as well
  source     TEXT NOT NULL,         -- api, config
  author     TEXT NOT NULL,
  created    BIGINT NOT NULL
);

-- Contents that every member of the network may fetch from this node by their
-- hash: what was published here, and copies of what others published. The bytes
-- are blobs.
CREATE TABLE published (
  namespace TEXT NOT NULL,
  hash      TEXT NOT NULL,
  created   BIGINT NOT NULL,
  PRIMARY KEY (namespace, hash)
);
CREATE INDEX published_hash ON published (hash);

CREATE TABLE datatypes (
  seq       {{serial}},
  id        TEXT NOT NULL UNIQUE,
  message   TEXT,
  validator TEXT NOT NULL,
  namespace TEXT NOT NULL,
  name      TEXT NOT NULL,
  version   TEXT NOT NULL,
  hash      TEXT NOT NULL,
  created   BIGINT NOT NULL,
  value     TEXT NOT NULL,
  UNIQUE (namespace, name, version)
);

CREATE TABLE identities (
  seq              {{serial}},
  id               TEXT NOT NULL UNIQUE,
  did              TEXT NOT NULL,
  parent           TEXT,
  type             TEXT NOT NULL,   -- org, node, custom
  namespace        TEXT NOT NULL,
  name             TEXT NOT NULL,
  description      TEXT NOT NULL DEFAULT '',
  profile          TEXT,            -- JSON object
  msg_claim        TEXT,
  msg_verification TEXT,
  msg_update       TEXT,
  created          BIGINT NOT NULL,
  updated          BIGINT NOT NULL,
  org              {{bytes}} NOT NULL, -- the organisation it belongs to
  signer           {{bytes}} NOT NULL, -- address of the key that signs for a custom identity, else zero
  claimed_block    BIGINT NOT NULL,          -- position of the pin that claimed it
  claimed_log      BIGINT NOT NULL,
  UNIQUE (namespace, did)
);

CREATE TABLE verifiers (
  seq       {{serial}},
  hash      TEXT NOT NULL UNIQUE,
  identity  TEXT NOT NULL,
  type      TEXT NOT NULL,
  value     TEXT NOT NULL,
  namespace TEXT NOT NULL,
  created   BIGINT NOT NULL
);
CREATE INDEX verifiers_value ON verifiers (value);
CREATE INDEX verifiers_identity ON verifiers (identity);

CREATE TABLE groups (
  seq       {{serial}},
  hash      TEXT NOT NULL UNIQUE,
  namespace TEXT NOT NULL,
  name      TEXT NOT NULL,
  members   TEXT NOT NULL,          -- JSON: [{"identity","node"}]
  message   TEXT,
  created   BIGINT NOT NULL
);

CREATE TABLE events (
  sequence   {{serial}},
  id         TEXT NOT NULL,
  type       TEXT NOT NULL,
  namespace  TEXT NOT NULL,
  reference  TEXT,
  correlator TEXT,
  tx         TEXT,
  topic      TEXT NOT NULL DEFAULT '',
  created    BIGINT NOT NULL
);
CREATE INDEX events_id ON events (id, namespace);
CREATE INDEX events_reference ON events (reference);
CREATE INDEX events_tx ON events (tx);
CREATE INDEX events_created ON events (created);

CREATE TABLE subscriptions (
  seq       {{serial}},
  id        TEXT NOT NULL UNIQUE,
  namespace TEXT NOT NULL,
  name      TEXT NOT NULL,
  transport TEXT NOT NULL,
  filter    TEXT NOT NULL,          -- JSON
  options   TEXT NOT NULL,          -- JSON
  created   BIGINT NOT NULL,
  updated   BIGINT,
  position  BIGINT NOT NULL,        -- sequence of the last acknowledged event
  secret    TEXT NOT NULL DEFAULT '', -- signs webhooks; never among the options, which can be listed and filtered by
  UNIQUE (namespace, name)
);

-- What became of events that the node carried to a target itself. Those that
-- could not be delivered (dead) stay until they are, or the subscription goes;
-- of the others a subscription keeps the newest.
CREATE TABLE deliveries (
  seq          {{serial}},
  id           TEXT NOT NULL UNIQUE,
  namespace    TEXT NOT NULL,
  subscription TEXT NOT NULL,
  state        TEXT NOT NULL,          -- retrying, delivered, failed, dead, interrupted
  frame        TEXT NOT NULL,          -- id of the event, or of the batch
  first        BIGINT NOT NULL,        -- sequence of the first event
  sequences    TEXT NOT NULL,          -- of all events, comma-joined
  attempts     BIGINT NOT NULL,
  status       BIGINT NOT NULL,        -- HTTP status of the last answer, 0 if none
  error        TEXT NOT NULL,
  created      BIGINT NOT NULL,
  updated      BIGINT NOT NULL
);
CREATE INDEX deliveries_subscription ON deliveries (subscription, state);

CREATE TABLE transactions (
  seq             {{serial}},
  id              TEXT NOT NULL UNIQUE,
  namespace       TEXT NOT NULL,
  type            TEXT NOT NULL,
  created         BIGINT NOT NULL,
  idempotency_key TEXT,
  blockchain_ids  TEXT NOT NULL DEFAULT ''  -- comma-joined
);
CREATE UNIQUE INDEX transactions_idempotency ON transactions (namespace, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX transactions_created ON transactions (created);

CREATE TABLE operations (
  seq       {{serial}},
  id        TEXT NOT NULL UNIQUE,
  namespace TEXT NOT NULL,
  tx        TEXT,
  type      TEXT NOT NULL,
  status    TEXT NOT NULL,          -- Initialized, Pending, Succeeded, Failed
  plugin    TEXT NOT NULL,
  input     TEXT,
  output    TEXT,
  error     TEXT NOT NULL DEFAULT '',
  created   BIGINT NOT NULL,
  updated   BIGINT NOT NULL,
  retry     TEXT
);
CREATE INDEX operations_tx ON operations (tx, namespace);
CREATE INDEX operations_created ON operations (created);

CREATE TABLE blockchain_events (
  seq              {{serial}},
  id               TEXT NOT NULL UNIQUE,
  source           TEXT NOT NULL,
  namespace        TEXT NOT NULL,
  name             TEXT NOT NULL,
  listener         TEXT,
  protocol_id      TEXT NOT NULL,
  output           TEXT,
  info             TEXT,
  timestamp        BIGINT NOT NULL,
  tx_type          TEXT NOT NULL DEFAULT '',
  tx_id            TEXT,
  tx_blockchain_id TEXT NOT NULL DEFAULT ''
);
CREATE INDEX blockchain_events_tx ON blockchain_events (tx_id, namespace);
CREATE INDEX blockchain_events_time ON blockchain_events (timestamp);

-- What an operator must know: lies, divergence, a broken feed.
CREATE TABLE incidents (
  seq  {{serial}},
  at   BIGINT NOT NULL,
  kind TEXT NOT NULL,
  text TEXT NOT NULL,
  ref  TEXT NOT NULL,
  UNIQUE (kind, ref)
);

-- Contract gateway ------------------------------------------------------------

-- Transactions that this node brings to a chain for applications. A row that is
-- signed has its nonce and the newest attempt's bytes before anything is sent.
CREATE TABLE chain_txs (
  seq       {{serial}},
  op        TEXT NOT NULL UNIQUE,  -- operations.id; of a filler its own
  tx        TEXT,                  -- transactions.id; null of a filler
  namespace TEXT NOT NULL,
  kind      TEXT NOT NULL,         -- type of the operation, or filler
  chain     BIGINT NOT NULL,
  account   {{bytes}} NOT NULL,
  nonce     BIGINT,                -- null while queued, unless the application chose it
  target    {{bytes}} NOT NULL,    -- contract; empty to create one
  value     TEXT NOT NULL,         -- wei, decimal
  data      {{bytes}} NOT NULL,
  gas       BIGINT NOT NULL,
  fees      TEXT NOT NULL,         -- JSON: what the application offers; {} for the policy
  state     TEXT NOT NULL,         -- queued, signed, succeeded, failed, cancelled
  cancel    BOOLEAN NOT NULL DEFAULT FALSE, -- the application wants it off the chain
  reason    TEXT NOT NULL DEFAULT '',       -- why it waits, or failed
  created   BIGINT NOT NULL,
  updated   BIGINT NOT NULL
);
CREATE INDEX chain_txs_work ON chain_txs (chain, account, seq) WHERE state IN ('queued', 'signed');
CREATE UNIQUE INDEX chain_txs_nonce ON chain_txs (chain, account, nonce) WHERE state = 'signed';

-- Every signed form of a transaction, oldest first. Any of them may be mined.
CREATE TABLE chain_attempts (
  seq      {{serial}},
  chain_tx BIGINT NOT NULL,        -- chain_txs.seq
  hash     {{bytes}} NOT NULL UNIQUE,
  nonce    BIGINT NOT NULL,
  raw      {{bytes}} NOT NULL,
  cancels  BOOLEAN NOT NULL,       -- it only uses up the nonce
  fees     TEXT NOT NULL,          -- JSON: gasPrice, or maxFeePerGas and maxPriorityFeePerGas
  created  BIGINT NOT NULL,
  error    TEXT NOT NULL DEFAULT ''-- what the chain had against it last
);
CREATE INDEX chain_attempts_tx ON chain_attempts (chain_tx, seq);

-- Accounts for which nothing new is signed until they are resumed.
CREATE TABLE suspended_signers (
  chain   BIGINT NOT NULL,
  account {{bytes}} NOT NULL,
  reason  TEXT NOT NULL,
  since   BIGINT NOT NULL,
  PRIMARY KEY (chain, account)
);

-- Interfaces of contracts (FFI). Methods, events and errors are JSON arrays.
CREATE TABLE interfaces (
  seq          {{serial}},
  id           TEXT NOT NULL UNIQUE,
  message      TEXT,
  namespace    TEXT NOT NULL,
  name         TEXT NOT NULL,
  network_name TEXT,
  version      TEXT NOT NULL,
  description  TEXT NOT NULL,
  published    BOOLEAN NOT NULL,
  methods      TEXT NOT NULL,
  events       TEXT NOT NULL,
  errors       TEXT NOT NULL,
  UNIQUE (namespace, name, version)
);
CREATE UNIQUE INDEX interfaces_network ON interfaces (namespace, network_name, version) WHERE network_name IS NOT NULL;

-- An interface at a place.
CREATE TABLE contract_apis (
  seq          {{serial}},
  id           TEXT NOT NULL UNIQUE,
  message      TEXT,
  namespace    TEXT NOT NULL,
  name         TEXT NOT NULL,
  network_name TEXT,
  interface    TEXT NOT NULL,      -- interfaces.id
  location     TEXT,               -- JSON; null: each call says where
  published    BOOLEAN NOT NULL,
  UNIQUE (namespace, name)
);
CREATE UNIQUE INDEX contract_apis_network ON contract_apis (namespace, network_name) WHERE network_name IS NOT NULL;

-- Who wants events of contracts, and how far each has come.
CREATE TABLE listeners (
  seq        {{serial}},
  id         TEXT NOT NULL UNIQUE,
  namespace  TEXT NOT NULL,
  name       TEXT NOT NULL,
  backend    TEXT NOT NULL,
  interface  TEXT,
  location   TEXT,                 -- JSON, of the first filter
  event      TEXT NOT NULL,        -- JSON, of the first filter
  signature  TEXT NOT NULL,
  topic      TEXT NOT NULL,
  options    TEXT NOT NULL,        -- JSON
  filters    TEXT NOT NULL,        -- JSON
  created    BIGINT NOT NULL,
  chain      BIGINT NOT NULL,
  start      BIGINT NOT NULL,      -- first block it wants
  next_block BIGINT NOT NULL,      -- everything below is stored
  block_hash {{bytes}} NOT NULL,   -- of the block below next_block; empty before the first
  last_log   TEXT NOT NULL DEFAULT '', -- protocol id of the last event that was stored
  UNIQUE (namespace, name)
);
CREATE INDEX listeners_topic ON listeners (namespace, topic);
CREATE INDEX blockchain_events_listener ON blockchain_events (listener, seq) WHERE listener IS NOT NULL;
