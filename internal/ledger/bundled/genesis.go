package bundled

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"time"

	cmtcrypto "github.com/cometbft/cometbft/crypto/ed25519"
	cmtjson "github.com/cometbft/cometbft/libs/json"
	"github.com/cometbft/cometbft/p2p"
	"github.com/cometbft/cometbft/privval"
	cmttypes "github.com/cometbft/cometbft/types"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/params"

	"github.com/parley-node/parley/wire"
)

// Files of a validator's folder.
const (
	genesisFile  = "config/genesis.json"
	validatorKey = "config/priv_validator_key.json"
	nodeKeyFile  = "config/node_key.json"
	signState    = "data/priv_validator_state.json"
)

// gasLimit is the gas limit of every block. Half of it is the most that a block
// may use (see maxBlockGas).
const gasLimit = 2_000_000_000

// Identity is the public part of a validator's keys: what its organisation
// tells the founder (PublicKey) and its peers (NodeID).
type Identity struct {
	PublicKey wire.Hash `json:"publicKey"` // ed25519 key that signs votes
	NodeID    string    `json:"nodeId"`    // identifies the peer: NodeID@host:port
}

// GenesisValidator is a founding validator.
type GenesisValidator struct {
	PublicKey wire.Hash // ed25519
	Power     int64     // voting power, at least 1
	Name      string    // shown in logs only
}

// GenesisConfig describes a new chain. Equal configs make equal files.
type GenesisConfig struct {
	ChainID    uint64
	Time       time.Time // start of the chain; not after its first block
	Validators []GenesisValidator
	// NetworkContract is where the network contract will be deployed. Its
	// ValidatorChanged events change the validator set; zero keeps the set fixed.
	NetworkContract wire.Address
	// Funded accounts start with 1 wei. Gas is free, so this is a convenience: it
	// only spares an account the wait of its first transactions (see intake).
	Funded []wire.Address
}

// appState is the part of the genesis file that CometBFT hands to the
// application untouched.
type appState struct {
	Ethereum        *core.Genesis  `json:"ethereum"`
	NetworkContract common.Address `json:"networkContract"`
}

// Init creates the keys of a validator in dir. It keeps keys that exist: a
// validator that signs with a new key and an old chain is another validator.
func Init(dir string) (Identity, error) {
	for _, sub := range []string{"config", "data"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return Identity{}, fmt.Errorf("create ledger folder: %w", err)
		}
	}
	switch _, err := os.Stat(filepath.Join(dir, validatorKey)); {
	case errors.Is(err, fs.ErrNotExist):
		if err := createValidator(dir); err != nil {
			return Identity{}, err
		}
	case err != nil:
		return Identity{}, fmt.Errorf("look for validator key: %w", err)
	}
	if _, err := p2p.LoadOrGenNodeKey(filepath.Join(dir, nodeKeyFile)); err != nil {
		return Identity{}, fmt.Errorf("node key %s: %w", nodeKeyFile, err)
	}
	return ReadIdentity(dir)
}

// createValidator writes a new validator key. The key file comes last: it is what
// Init looks for.
func createValidator(dir string) error {
	pv := privval.NewFilePV(cmtcrypto.GenPrivKey(), "", "")
	for _, file := range []struct {
		name    string
		content any
	}{{signState, pv.LastSignState}, {validatorKey, pv.Key}} {
		raw, err := cmtjson.MarshalIndent(file.content, "", "  ")
		if err != nil {
			return fmt.Errorf("encode %s: %w", file.name, err)
		}
		if err := os.WriteFile(filepath.Join(dir, file.name), raw, 0o600); err != nil {
			return fmt.Errorf("create validator key: %w", err)
		}
	}
	return nil
}

// InitNetwork prepares the folders of a new chain whose validators one process
// sets up: a developer's single one, or the members of a demonstration. Each
// gets power 10 in addition to the validators that c names.
func InitNetwork(dirs []string, c GenesisConfig) ([]Identity, error) {
	var ids []Identity
	for _, dir := range dirs {
		id, err := Init(dir)
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
		c.Validators = append(c.Validators, GenesisValidator{PublicKey: id.PublicKey, Power: 10})
	}
	genesis, err := Genesis(c)
	if err != nil {
		return nil, err
	}
	for _, dir := range dirs {
		if err := WriteGenesis(dir, genesis); err != nil {
			return nil, err
		}
	}
	return ids, nil
}

// ReadIdentity returns the public part of the keys in dir.
func ReadIdentity(dir string) (Identity, error) {
	pv, err := loadValidator(dir)
	if err != nil {
		return Identity{}, err
	}
	nodeKey, err := p2p.LoadNodeKey(filepath.Join(dir, nodeKeyFile))
	if err != nil {
		return Identity{}, fmt.Errorf("read node key (create it with Init): %w", err)
	}
	id := Identity{NodeID: string(nodeKey.ID())}
	copy(id.PublicKey[:], pv.Key.PubKey.Bytes())
	return id, nil
}

// loadValidator reads the validator key and its last sign state. CometBFT's own
// loader ends the process when a file is missing or damaged, so both are
// checked first.
func loadValidator(dir string) (*privval.FilePV, error) {
	keyPath, statePath := filepath.Join(dir, validatorKey), filepath.Join(dir, signState)
	for path, into := range map[string]any{keyPath: &privval.FilePVKey{}, statePath: &privval.FilePVLastSignState{}} {
		raw, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("read validator key (create it with Init): %w", err)
		}
		if err := cmtjson.Unmarshal(raw, into); err != nil {
			return nil, fmt.Errorf("validator file %s is damaged, restore it from the backup: %w", path, err)
		}
	}
	pv := privval.LoadFilePV(keyPath, statePath)
	if len(pv.Key.PubKey.Bytes()) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("validator key %s is of type %s, only ed25519 is supported", keyPath, pv.Key.PubKey.Type())
	}
	return pv, nil
}

// Genesis makes the genesis file that all validators of a chain share, byte for
// byte.
func Genesis(c GenesisConfig) ([]byte, error) {
	switch {
	case c.ChainID == 0:
		return nil, errors.New("genesis: chain id 0, choose a positive number that no other chain of the members uses")
	case len(c.Validators) == 0:
		return nil, errors.New("genesis: no validators, name at least one")
	case c.Time.IsZero():
		return nil, errors.New("genesis: no start time")
	}
	doc := cmttypes.GenesisDoc{
		ChainID:         fmt.Sprintf("parley-%d", c.ChainID),
		GenesisTime:     c.Time.UTC().Truncate(time.Millisecond),
		ConsensusParams: cmttypes.DefaultConsensusParams(),
	}
	doc.ConsensusParams.Block.MaxBytes = maxBlockBytes
	doc.ConsensusParams.Version.App = rulesVersion
	seen := make(map[wire.Hash]bool)
	for _, v := range c.Validators {
		if seen[v.PublicKey] {
			return nil, fmt.Errorf("genesis: duplicate validator %s, every member needs a key of its own", v.PublicKey)
		}
		seen[v.PublicKey] = true
		if v.Power < 1 {
			return nil, fmt.Errorf("genesis: validator %s has power %d, it must be at least 1", v.PublicKey, v.Power)
		}
		key := cmtcrypto.PubKey(bytes.Clone(v.PublicKey[:]))
		doc.Validators = append(doc.Validators, cmttypes.GenesisValidator{Address: key.Address(), PubKey: key, Power: v.Power, Name: v.Name})
	}
	state, err := json.Marshal(appState{Ethereum: ethereumGenesis(c), NetworkContract: common.Address(c.NetworkContract)})
	if err != nil {
		return nil, fmt.Errorf("genesis: encode: %w", err)
	}
	doc.AppState = state
	if err := doc.ValidateAndComplete(); err != nil {
		return nil, fmt.Errorf("genesis: %w", err)
	}
	return cmtjson.MarshalIndent(&doc, "", "  ")
}

// ethereumGenesis is a chain with all rules up to Prague from the start.
func ethereumGenesis(c GenesisConfig) *core.Genesis {
	zero := new(uint64)
	alloc := core.SystemContractAllocs()
	// The two predeploys that ask a beacon chain to let a validator go have
	// nothing to ask here. A lone STOP keeps them present, as Prague demands, and
	// silent: no block ever has execution-layer requests (EIP-7685).
	for _, predeploy := range []common.Address{params.WithdrawalQueueAddress, params.ConsolidationQueueAddress} {
		alloc[predeploy] = types.Account{Nonce: 1, Code: []byte{0}, Balance: new(big.Int)}
	}
	for _, account := range c.Funded {
		alloc[common.Address(account)] = types.Account{Balance: big.NewInt(1)}
	}
	return &core.Genesis{
		Config: &params.ChainConfig{
			ChainID:                 new(big.Int).SetUint64(c.ChainID),
			HomesteadBlock:          new(big.Int),
			EIP150Block:             new(big.Int),
			EIP155Block:             new(big.Int),
			EIP158Block:             new(big.Int),
			ByzantiumBlock:          new(big.Int),
			ConstantinopleBlock:     new(big.Int),
			PetersburgBlock:         new(big.Int),
			IstanbulBlock:           new(big.Int),
			MuirGlacierBlock:        new(big.Int),
			BerlinBlock:             new(big.Int),
			LondonBlock:             new(big.Int),
			ArrowGlacierBlock:       new(big.Int),
			GrayGlacierBlock:        new(big.Int),
			MergeNetsplitBlock:      new(big.Int),
			TerminalTotalDifficulty: new(big.Int),
			ShanghaiTime:            zero,
			CancunTime:              zero,
			PragueTime:              zero,
			BlobScheduleConfig: &params.BlobScheduleConfig{
				Cancun: params.DefaultCancunBlobConfig,
				Prague: params.DefaultPragueBlobConfig,
			},
		},
		Timestamp:  uint64(c.Time.Unix()),
		GasLimit:   gasLimit,
		BaseFee:    new(big.Int),
		Difficulty: new(big.Int),
		Alloc:      alloc,
	}
}

// WriteGenesis puts the chain's genesis file into a validator's folder. It
// refuses to replace another one: the data in the folder belongs to that chain.
func WriteGenesis(dir string, genesis []byte) error {
	path := filepath.Join(dir, genesisFile)
	old, err := os.ReadFile(path)
	switch {
	case err == nil && bytes.Equal(old, genesis):
		return nil
	case err == nil:
		return fmt.Errorf("%s is the genesis of another chain, use an empty folder", path)
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("look for genesis: %w", err)
	}
	if _, _, err := parseGenesis(genesis); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("create ledger folder: %w", err)
	}
	return os.WriteFile(path, genesis, 0o600)
}

// ReadGenesis gives the genesis file of the chain that a validator's folder
// belongs to, for others to join it.
func ReadGenesis(dir string) ([]byte, error) {
	raw, err := os.ReadFile(filepath.Join(dir, genesisFile))
	if err != nil {
		return nil, fmt.Errorf("read the genesis of the ledger: %w", err)
	}
	return raw, nil
}

// parseGenesis reads a genesis file made by Genesis.
func parseGenesis(raw []byte) (*cmttypes.GenesisDoc, appState, error) {
	var state appState
	doc, err := cmttypes.GenesisDocFromJSON(raw)
	if err != nil {
		return nil, state, fmt.Errorf("genesis file: %w", err)
	}
	if err := json.Unmarshal(doc.AppState, &state); err != nil {
		return nil, state, fmt.Errorf("genesis file: app_state: %w", err)
	}
	if state.Ethereum == nil || state.Ethereum.Config == nil || state.Ethereum.Config.ChainID == nil {
		return nil, state, errors.New("genesis file: app_state has no Ethereum chain, make the file with Genesis")
	}
	return doc, state, nil
}
