// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

interface INetwork {
    function pinBatchData(bytes calldata data) external;
}

/// What the tests of the contract gateway call: one of everything.
contract Sample {
    struct Line {
        string item;
        uint256 amount;
    }

    struct Order {
        uint64 id;
        address buyer;
        Line[] lines;
        int8[2][] grid;
    }

    event Changed(address indexed from, uint256 value);
    event Stored(string indexed key, Order order);

    error TooHigh(uint256 value, uint256 most);

    uint256 public value;
    uint256 public total;

    constructor(uint256 start) {
        value = start;
    }

    function set(uint256 x) external {
        if (x > 1000) revert TooHigh(x, 1000);
        require(x != 13, "thirteen brings bad luck");
        value = x;
        total += 1;
        emit Changed(msg.sender, x);
    }

    function set(uint256 x, string calldata why) external {
        require(bytes(why).length > 0, "say why");
        value = x;
        emit Changed(msg.sender, x);
    }

    /// Emits as many events.
    function many(uint256 n) external {
        for (uint256 i = 0; i < n; i++) emit Changed(msg.sender, i);
    }

    function store(string calldata key, Order calldata order) external {
        emit Stored(key, order);
    }

    function echo(Order calldata order) external pure returns (Order memory) {
        return order;
    }

    function both() external view returns (uint256, bool named) {
        return (value, true);
    }

    function pay() external payable {
        value += msg.value;
    }

    /// Burns all gas when it is mined, not when it is estimated in an earlier block.
    function late(uint256 block_) external {
        if (block.number > block_) while (true) value++;
    }

    /// Its own effect and a pin of the network in one transaction.
    function setAndPin(INetwork network, uint256 x, bytes calldata data) external {
        value = x;
        network.pinBatchData(data);
    }
}
