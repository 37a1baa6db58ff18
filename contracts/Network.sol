// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title The network contract of Parley
/// @notice It holds who is a member of a network, with which keys and rules,
/// and gives every record of the network one number in one order. It never sees
/// names or content: a pin is a root, a tag, masked handles and sealed bytes.
///
/// The record log
/// --------------
/// Everything that happens is one numbered record, written by {_record} as one
/// EVM log with four topics and the record's fields as data:
///
///   topic 0  kind     keccak256 of the event's signature
///   topic 1  number   1, 2, 3 … without a gap
///   topic 2  running  the running hash up to and including this record
///   topic 3  signer   the account that is responsible for it
///   data     abi.encode(fields): the event's arguments that are not indexed
///
///   running(0) = 0
///   running(n) = keccak256(running(n-1) ‖ kind ‖ signer ‖ keccak256(data))
///
/// where signer is left-padded to 32 bytes, so 128 bytes are hashed. Whoever
/// reads the log recomputes this from the raw log alone: a log that an endpoint
/// dropped, added or changed cannot go unseen, and {running} at any block
/// commits to the whole history before it.
contract Network {
    // ------------------------------------------------------------------ types

    /// Constants that all members agree on. Durations are nanoseconds of
    /// consensus time.
    struct Params {
        uint64 confirmations; // blocks on top before a position is final, on chains without finality
        uint64 protocolVersion;
        uint64 protocolFrom; // the block from which protocolVersion holds; 0 for at once
        uint64 window; // how far a pin counter may be from the highest valid one
        uint64 receiptAge; // blocks that a receipt's recent block may lie before the pin
        uint64 skipAfter; // before nodes vote against an entry that nobody holds
        uint64 skipGrace; // from the completing skip vote until it takes effect
    }

    struct Founder {
        bytes32 org;
        address key;
    }

    /// An ed25519 key of the bundled ledger's consensus and its voting power.
    struct Validator {
        bytes32 key;
        uint64 power;
    }

    enum Status {
        None,
        Active,
        Suspended,
        Removed
    }

    struct Member {
        Status status;
        uint64 admitted; // record number of the admission; names this membership
        uint32 keys; // valid keys
        uint32 index; // in memberList
    }

    /// A key belongs to one organisation for ever, or old pins would change
    /// hands; that organisation may revoke it and add it again. It is valid for
    /// records with added < number < revoked (revoked 0: open) while the
    /// membership in which it was added lasts and is active. Only the latest
    /// range is kept here, the records tell all of them.
    struct Key {
        bytes32 org;
        uint64 added;
        uint64 revoked;
    }

    /// What a proposal does, with the arguments it takes, abi-encoded.
    enum Action {
        Admit, // bytes32 org, address key
        Suspend, // bytes32 org
        Resume, // bytes32 org
        Remove, // bytes32 org
        Policy, // uint64 approvals
        Params, // Params
        Validator, // Validator; power 0 removes it
        Successor, // address contract
        Terminate // nothing
    }

    struct Proposal {
        Action action;
        bool executed;
        bytes arguments;
    }

    enum Vote {
        None,
        For,
        Against
    }

    // ---------------------------------------------------------------- records

    event Founded(uint64 indexed number, bytes32 indexed running, address indexed signer, Params params, uint64 approvals, bytes32 epoch1);
    /// The key is the member's first; no KeyAdded follows.
    event MemberAdmitted(uint64 indexed number, bytes32 indexed running, address indexed signer, bytes32 org, address key);
    event MemberSuspended(uint64 indexed number, bytes32 indexed running, address indexed signer, bytes32 org);
    event MemberResumed(uint64 indexed number, bytes32 indexed running, address indexed signer, bytes32 org);
    /// All keys of the member end with it.
    event MemberRemoved(uint64 indexed number, bytes32 indexed running, address indexed signer, bytes32 org);
    event KeyAdded(uint64 indexed number, bytes32 indexed running, address indexed signer, bytes32 org, address key);
    event KeyRevoked(uint64 indexed number, bytes32 indexed running, address indexed signer, bytes32 org, address key);
    event NodeRegistered(uint64 indexed number, bytes32 indexed running, address indexed signer, bytes32 org, bytes32 certHash, bytes sealKey, string[] endpoints);
    event ParamsChanged(uint64 indexed number, bytes32 indexed running, address indexed signer, Params params);
    event PolicyChanged(uint64 indexed number, bytes32 indexed running, address indexed signer, uint64 approvals);
    /// The bundled ledger's consensus engine follows this one.
    event ValidatorChanged(uint64 indexed number, bytes32 indexed running, address indexed signer, bytes32 key, uint64 power);
    event Proposed(uint64 indexed number, bytes32 indexed running, address indexed signer, uint64 id, uint8 action, bytes arguments);
    event Voted(uint64 indexed number, bytes32 indexed running, address indexed signer, uint64 id, bytes32 org, bool approve);
    /// The record of the proposal's effect stands right before it.
    event Executed(uint64 indexed number, bytes32 indexed running, address indexed signer, uint64 id);
    event Succeeded(uint64 indexed number, bytes32 indexed running, address indexed signer, address successor);
    event Terminated(uint64 indexed number, bytes32 indexed running, address indexed signer);
    /// carrier is the contract that brought the pin, zero if the signer sent it.
    event Pinned(uint64 indexed number, bytes32 indexed running, address indexed signer, bytes32 org, bytes32 root, bytes16 tag, bytes16[] handles, bytes control, address carrier);

    // --------------------------------------------------------------- refusals

    error NoFounder();
    error ZeroOrg();
    error ZeroKey();
    error UnknownKey(address key);
    error KeyNotValid(address key);
    error KeyValidAlready(address key);
    error KeyOfOtherMember(address key);
    error LastKey(bytes32 org);
    error AlreadyMember(bytes32 org);
    error NotMember(bytes32 org);
    error MemberNotActive(bytes32 org);
    error MemberNotSuspended(bytes32 org);
    error LastActiveMember(bytes32 org);
    error PolicyAboveMembers(uint64 approvals, uint64 activeMembers);
    error InvalidParams(string field);
    error UnknownValidator(bytes32 key);
    error LastValidator(bytes32 key);
    error PowerTooHigh(uint64 power, uint64 limit);
    error InvalidSuccessor(address successor);
    error WrongArguments(uint256 length);
    error UnknownProposal(uint64 id);
    error ProposalExecuted(uint64 id);
    error VotedBefore(uint64 id, bytes32 org);
    error TooManyHandles(uint256 count, uint256 limit);
    error ControlTooLong(uint256 length, uint256 limit);
    error EmptyPin();
    error HandlesWithoutRoot();
    error InvalidNode(string field);
    error PinExpired(uint64 expiry, uint256 currentBlock);
    error PinCarriedBefore(bytes32 digest);
    error InvalidSignature();
    error NetworkSucceeded(address successor);
    error NetworkTerminated();

    // ------------------------------------------------------------------ state

    uint256 public constant MAX_HANDLES = 256;
    uint256 public constant MAX_CONTROL = 64 * 1024;
    uint256 public constant MAX_SEAL_KEY = 4096;
    uint256 public constant MAX_ENDPOINTS = 16;
    uint256 public constant MAX_ENDPOINT = 255;
    /// Keeps the sum for a million validators below CometBFT's limit of 2^60.
    uint64 public constant MAX_POWER = 2 ** 40;

    bytes32 private constant DOMAIN = keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)");
    bytes32 private constant CARRIED_PIN = keccak256("CarriedPin(bytes32 root,bytes16 tag,bytes32 handles,bytes32 control,address caller,uint64 expiry)");
    /// Half the order of secp256k1: a valid s lies at or below it.
    uint256 private constant HALF_ORDER = 0x7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a0;

    // A pin reads and writes the first two slots and nothing else of its own.
    uint64 public records; // number of the newest record
    address public successor;
    bool public terminated;
    bytes32 public running; // running hash of the newest record

    uint64 public policy; // approvals that a proposal needs; 0 for a majority of the active members
    uint64 public proposals; // number of the newest proposal
    uint64 public activeMembers;
    uint64 public validators; // number of validators with power

    bytes32 public epoch1; // hash of the network audience's first epoch definition
    Params private _params;
    bytes32[] private _memberList; // active and suspended ones, in no order

    mapping(address key => Key) public keys;
    mapping(bytes32 org => Member) public members;
    mapping(bytes32 key => uint64 power) public validatorPower;
    mapping(uint64 id => Proposal) private _proposals;
    mapping(uint64 id => mapping(uint64 membership => Vote)) private _votes;
    mapping(bytes32 digest => bool) public carried;

    // --------------------------------------------------------------- founding

    /// @param founders the founding members with their first keys
    /// @param params_ the network's constants
    /// @param approvals the policy; 0 for a majority
    /// @param epoch1_ hash of the network audience's first epoch definition
    /// @param genesisValidators the validators of the bundled ledger's genesis,
    /// which this contract must know to guard the last one; empty on other chains
    constructor(Founder[] memory founders, Params memory params_, uint64 approvals, bytes32 epoch1_, Validator[] memory genesisValidators) {
        if (founders.length == 0) revert NoFounder();
        if (approvals > founders.length) revert PolicyAboveMembers(approvals, uint64(founders.length));
        _checkParams(params_);
        _params = params_;
        policy = approvals;
        epoch1 = epoch1_;
        _record(Founded.selector, msg.sender, abi.encode(params_, approvals, epoch1_));
        for (uint256 i = 0; i < founders.length; i++) {
            _checkAdmit(founders[i].org, founders[i].key);
            _admit(msg.sender, founders[i].org, founders[i].key);
        }
        for (uint256 i = 0; i < genesisValidators.length; i++) {
            _checkValidator(genesisValidators[i]);
            _setValidator(msg.sender, genesisValidators[i]);
        }
    }

    // ------------------------------------------------------------------- pins

    /// Pins a batch, or a control alone (zero root, no handles).
    function pin(bytes32 root, bytes16 tag, bytes16[] calldata handles, bytes calldata control) external {
        bytes32 org = _author(msg.sender);
        _checkPin(root, handles.length, control.length);
        _record(Pinned.selector, msg.sender, abi.encode(org, root, tag, handles, control, address(0)));
    }

    /// Takes a pin that a custom contract carries for a member, so that the
    /// contract's own effect and the pin are one transaction. The member is the
    /// one whose key signed {carriedPinDigest} for the calling contract.
    /// @param data abi.encode(bytes32 root, bytes16 tag, bytes16[] handles, bytes
    /// control, uint64 expiry, bytes signature), signature = r ‖ s ‖ v
    function pinBatchData(bytes calldata data) external {
        (bytes32 root, bytes16 tag, bytes16[] memory handles, bytes memory control, uint64 expiry, bytes memory signature) =
            abi.decode(data, (bytes32, bytes16, bytes16[], bytes, uint64, bytes));
        if (block.number > expiry) revert PinExpired(expiry, block.number);
        _checkPin(root, handles.length, control.length);
        bytes32 digest = carriedPinDigest(root, tag, handles, control, msg.sender, expiry);
        if (carried[digest]) revert PinCarriedBefore(digest);
        carried[digest] = true;
        address signer = _recover(digest, signature);
        bytes32 org = _author(signer);
        _record(Pinned.selector, signer, abi.encode(org, root, tag, handles, control, msg.sender));
    }

    /// The EIP-712 digest that a member key signs so that `caller` may carry
    /// the pin up to and including block `expiry`, once.
    function carriedPinDigest(bytes32 root, bytes16 tag, bytes16[] memory handles, bytes memory control, address caller, uint64 expiry) public view returns (bytes32) {
        bytes32 domain = keccak256(abi.encode(DOMAIN, keccak256("Parley"), keccak256("1"), block.chainid, address(this)));
        bytes32 message = keccak256(abi.encode(CARRIED_PIN, root, tag, _hashHandles(handles), keccak256(control), caller, expiry));
        return keccak256(abi.encodePacked(hex"1901", domain, message));
    }

    // ---------------------------------------------------------- own keys, node

    /// Adds a key to the sender's organisation.
    function addKey(address key) external {
        bytes32 org = _author(msg.sender);
        _checkNewKey(org, key);
        members[org].keys++;
        keys[key] = Key(org, _record(KeyAdded.selector, msg.sender, abi.encode(org, key)), 0);
    }

    /// Ends a key of the sender's organisation. The last one stays: an
    /// organisation that lost it is removed and admitted again with a new one.
    function revokeKey(address key) external {
        bytes32 org = _author(msg.sender);
        Key storage k = keys[key];
        if (k.org == 0) revert UnknownKey(key);
        if (k.org != org) revert KeyOfOtherMember(key);
        if (!_keyValid(k, members[org])) revert KeyNotValid(key);
        if (members[org].keys == 1) revert LastKey(org);
        members[org].keys--;
        k.revoked = _record(KeyRevoked.selector, msg.sender, abi.encode(org, key));
    }

    /// Publishes how to reach the sender's node and how to seal secrets for it.
    function registerNode(bytes32 certHash, bytes calldata sealKey, string[] calldata endpoints) external {
        bytes32 org = _author(msg.sender);
        if (certHash == 0) revert InvalidNode("certHash");
        if (sealKey.length == 0 || sealKey.length > MAX_SEAL_KEY) revert InvalidNode("sealKey");
        if (endpoints.length > MAX_ENDPOINTS) revert InvalidNode("endpoints");
        for (uint256 i = 0; i < endpoints.length; i++) {
            uint256 length = bytes(endpoints[i]).length;
            if (length == 0 || length > MAX_ENDPOINT) revert InvalidNode("endpoints");
        }
        _record(NodeRegistered.selector, msg.sender, abi.encode(org, certHash, sealKey, endpoints));
    }

    // ---------------------------------------------------------- administration

    /// Proposes a change; this is also the proposer's vote for it. What could
    /// not be done now cannot be proposed.
    function propose(Action action, bytes calldata arguments) external returns (uint64 id) {
        bytes32 org = _author(msg.sender);
        _check(action, arguments);
        id = ++proposals;
        _proposals[id] = Proposal(action, false, arguments);
        _record(Proposed.selector, msg.sender, abi.encode(id, action, arguments));
        _vote(id, org, true);
    }

    /// Votes on a proposal, once per membership. The approving vote that
    /// completes the policy also executes it; if the change has become
    /// impossible meanwhile, that vote is refused with the reason.
    function vote(uint64 id, bool approve) external {
        bytes32 org = _author(msg.sender);
        if (id == 0 || id > proposals) revert UnknownProposal(id);
        if (_proposals[id].executed) revert ProposalExecuted(id);
        if (_votes[id][members[org].admitted] != Vote.None) revert VotedBefore(id, org);
        _vote(id, org, approve);
    }

    // ------------------------------------------------------------------- views

    function params() external view returns (Params memory) {
        return _params;
    }

    /// The members that were not removed, in no order.
    function memberList() external view returns (bytes32[] memory) {
        return _memberList;
    }

    /// @return p the proposal
    /// @return approvals that count now: of active members, in their present membership
    /// @return against the same for votes against
    function proposal(uint64 id) external view returns (Proposal memory p, uint64 approvals, uint64 against) {
        if (id == 0 || id > proposals) revert UnknownProposal(id);
        return (_proposals[id], _tally(id, Vote.For), _tally(id, Vote.Against));
    }

    /// How many approvals a proposal needs now. A policy that suspensions or
    /// removals left above the number of active members means all of them.
    function required() public view returns (uint64) {
        uint64 wanted = policy == 0 ? activeMembers / 2 + 1 : policy;
        return wanted < activeMembers ? wanted : activeMembers;
    }

    /// Whether the key may act for an active member now.
    function isValidKey(address key) external view returns (bool) {
        Key storage k = keys[key];
        Member storage m = members[k.org];
        return k.org != 0 && m.status == Status.Active && _keyValid(k, m);
    }

    // ---------------------------------------------------------------- internal

    /// Writes one record; see the contract's comment for its form.
    function _record(bytes32 kind, address signer, bytes memory data) private returns (uint64) {
        uint256 n = ++records;
        bytes32 hash = keccak256(abi.encode(running, kind, signer, keccak256(data)));
        running = hash;
        // What is logged is what was hashed, byte for byte; `emit` would encode again.
        assembly ("memory-safe") {
            log4(add(data, 32), mload(data), kind, n, hash, signer)
        }
        return uint64(n);
    }

    /// The organisation that a key may act for now. Every call that changes
    /// something passes here, so a succeeded or terminated network ends here.
    function _author(address key) private view returns (bytes32 org) {
        if (successor != address(0)) revert NetworkSucceeded(successor);
        if (terminated) revert NetworkTerminated();
        Key storage k = keys[key];
        org = k.org;
        if (org == 0) revert UnknownKey(key);
        Member storage m = members[org];
        if (m.status != Status.Active) revert MemberNotActive(org);
        if (!_keyValid(k, m)) revert KeyNotValid(key);
    }

    /// A key that was added in an earlier membership ended with that one.
    function _keyValid(Key storage k, Member storage m) private view returns (bool) {
        return k.revoked == 0 && k.added >= m.admitted;
    }

    function _vote(uint64 id, bytes32 org, bool approve) private {
        _votes[id][members[org].admitted] = approve ? Vote.For : Vote.Against;
        _record(Voted.selector, msg.sender, abi.encode(id, org, approve));
        if (!approve || _tally(id, Vote.For) < required()) return;
        Proposal storage p = _proposals[id];
        p.executed = true;
        bytes memory arguments = p.arguments;
        _check(p.action, arguments);
        _apply(p.action, arguments);
        _record(Executed.selector, msg.sender, abi.encode(id));
    }

    /// Counts the votes of one kind by members that are active now. Votes are
    /// kept per membership: those of a removed member stay out even if the
    /// organisation comes back.
    function _tally(uint64 id, Vote kind) private view returns (uint64 count) {
        for (uint256 i = 0; i < _memberList.length; i++) {
            Member storage m = members[_memberList[i]];
            if (m.status == Status.Active && _votes[id][m.admitted] == kind) count++;
        }
    }

    /// Refuses what cannot be done now.
    function _check(Action action, bytes memory a) private view {
        if (a.length != _argumentsLength(action)) revert WrongArguments(a.length);
        if (action == Action.Admit) {
            (bytes32 org, address key) = abi.decode(a, (bytes32, address));
            _checkAdmit(org, key);
        } else if (action == Action.Suspend) {
            bytes32 org = abi.decode(a, (bytes32));
            if (members[org].status != Status.Active) revert MemberNotActive(org);
            if (activeMembers == 1) revert LastActiveMember(org);
        } else if (action == Action.Resume) {
            bytes32 org = abi.decode(a, (bytes32));
            if (members[org].status != Status.Suspended) revert MemberNotSuspended(org);
        } else if (action == Action.Remove) {
            bytes32 org = abi.decode(a, (bytes32));
            Status status = members[org].status;
            if (status == Status.None || status == Status.Removed) revert NotMember(org);
            if (status == Status.Active && activeMembers == 1) revert LastActiveMember(org);
        } else if (action == Action.Policy) {
            uint64 approvals = abi.decode(a, (uint64));
            if (approvals > activeMembers) revert PolicyAboveMembers(approvals, activeMembers);
        } else if (action == Action.Params) {
            _checkParams(abi.decode(a, (Params)));
        } else if (action == Action.Validator) {
            _checkValidator(abi.decode(a, (Validator)));
        } else if (action == Action.Successor) {
            address next = abi.decode(a, (address));
            if (next == address(0) || next == address(this)) revert InvalidSuccessor(next);
        }
    }

    function _argumentsLength(Action action) private pure returns (uint256) {
        if (action == Action.Terminate) return 0;
        if (action == Action.Admit || action == Action.Validator) return 64;
        if (action == Action.Params) return 7 * 32;
        return 32;
    }

    function _apply(Action action, bytes memory a) private {
        if (action == Action.Admit) {
            (bytes32 org, address key) = abi.decode(a, (bytes32, address));
            _admit(msg.sender, org, key);
        } else if (action == Action.Suspend) {
            members[abi.decode(a, (bytes32))].status = Status.Suspended;
            activeMembers--;
            _record(MemberSuspended.selector, msg.sender, a);
        } else if (action == Action.Resume) {
            members[abi.decode(a, (bytes32))].status = Status.Active;
            activeMembers++;
            _record(MemberResumed.selector, msg.sender, a);
        } else if (action == Action.Remove) {
            _remove(abi.decode(a, (bytes32)));
            _record(MemberRemoved.selector, msg.sender, a);
        } else if (action == Action.Policy) {
            policy = abi.decode(a, (uint64));
            _record(PolicyChanged.selector, msg.sender, a);
        } else if (action == Action.Params) {
            _params = abi.decode(a, (Params));
            _record(ParamsChanged.selector, msg.sender, a);
        } else if (action == Action.Validator) {
            _setValidator(msg.sender, abi.decode(a, (Validator)));
        } else if (action == Action.Successor) {
            successor = abi.decode(a, (address));
            _record(Succeeded.selector, msg.sender, a);
        } else {
            terminated = true;
            _record(Terminated.selector, msg.sender, a);
        }
    }

    function _admit(address signer, bytes32 org, address key) private {
        uint64 number = _record(MemberAdmitted.selector, signer, abi.encode(org, key));
        members[org] = Member(Status.Active, number, 1, uint32(_memberList.length));
        _memberList.push(org);
        activeMembers++;
        keys[key] = Key(org, number, 0);
    }

    function _remove(bytes32 org) private {
        Member storage m = members[org];
        if (m.status == Status.Active) activeMembers--;
        m.status = Status.Removed;
        m.keys = 0;
        bytes32 last = _memberList[_memberList.length - 1];
        _memberList[m.index] = last;
        members[last].index = m.index;
        _memberList.pop();
    }

    function _setValidator(address signer, Validator memory v) private {
        uint64 before = validatorPower[v.key];
        if (before == 0) validators++;
        if (v.power == 0) validators--;
        validatorPower[v.key] = v.power;
        _record(ValidatorChanged.selector, signer, abi.encode(v.key, v.power));
    }

    function _checkAdmit(bytes32 org, address key) private view {
        if (org == 0) revert ZeroOrg();
        Status status = members[org].status;
        if (status == Status.Active || status == Status.Suspended) revert AlreadyMember(org);
        _checkNewKey(org, key);
    }

    function _checkNewKey(bytes32 org, address key) private view {
        if (key == address(0)) revert ZeroKey();
        Key storage k = keys[key];
        if (k.org == 0) return;
        if (k.org != org) revert KeyOfOtherMember(key);
        Member storage m = members[org];
        // Keys of a membership that was ended by removal are free again.
        if (m.status != Status.Removed && _keyValid(k, m)) revert KeyValidAlready(key);
    }

    /// CometBFT stops for ever when its last validator goes or an unknown one
    /// is removed, so neither can be voted.
    function _checkValidator(Validator memory v) private view {
        if (v.key == 0) revert ZeroKey();
        if (v.power > MAX_POWER) revert PowerTooHigh(v.power, MAX_POWER);
        if (v.power != 0) return;
        if (validatorPower[v.key] == 0) revert UnknownValidator(v.key);
        if (validators == 1) revert LastValidator(v.key);
    }

    /// Durations are read into signed 64-bit numbers, as most languages have it.
    function _checkParams(Params memory p) private pure {
        uint64 longest = uint64(type(int64).max);
        if (p.protocolVersion == 0) revert InvalidParams("protocolVersion");
        if (p.window == 0) revert InvalidParams("window");
        if (p.receiptAge == 0) revert InvalidParams("receiptAge");
        if (p.skipAfter == 0 || p.skipAfter > longest) revert InvalidParams("skipAfter");
        if (p.skipGrace == 0 || p.skipGrace > longest) revert InvalidParams("skipGrace");
    }

    function _checkPin(bytes32 root, uint256 handles, uint256 control) private pure {
        if (handles > MAX_HANDLES) revert TooManyHandles(handles, MAX_HANDLES);
        if (control > MAX_CONTROL) revert ControlTooLong(control, MAX_CONTROL);
        if (root != 0) return;
        if (handles != 0) revert HandlesWithoutRoot();
        if (control == 0) revert EmptyPin();
    }

    /// keccak256 over the handles one after the other, 16 bytes each.
    /// abi.encodePacked would pad each to 32.
    function _hashHandles(bytes16[] memory handles) private pure returns (bytes32 hash) {
        bytes memory packed = new bytes(handles.length * 16 + 16);
        assembly ("memory-safe") {
            let to := add(packed, 32)
            let from := add(handles, 32)
            let n := mload(handles)
            for { let i := 0 } lt(i, n) { i := add(i, 1) } {
                // The upper half is the handle; the zero lower half is
                // overwritten by the next one, or falls into the spare 16 bytes.
                mstore(add(to, mul(i, 16)), mload(add(from, mul(i, 32))))
            }
            hash := keccak256(to, mul(n, 16))
        }
    }

    function _recover(bytes32 digest, bytes memory signature) private pure returns (address signer) {
        if (signature.length != 65) revert InvalidSignature();
        bytes32 r;
        bytes32 s;
        uint8 v;
        assembly ("memory-safe") {
            r := mload(add(signature, 32))
            s := mload(add(signature, 64))
            v := byte(0, mload(add(signature, 96)))
        }
        if (v < 27) v += 27;
        if (uint256(s) > HALF_ORDER) revert InvalidSignature();
        signer = ecrecover(digest, v, r, s);
        if (signer == address(0)) revert InvalidSignature();
    }
}
