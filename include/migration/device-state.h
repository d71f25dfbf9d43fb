// SPDX-License-Identifier: BSD-2-Clause
// The state of a device, beside the sections: packets with an order of their own, sent by a thread
// per device and loaded by another, for all devices at the same time. They travel on the page
// channels of multifd, or block by block in PART sections. docs/devel/device-state.rst has the
// threads and the bound on memory; docs/interop/stream-format.rst, "Device state", the bytes.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>

#include "migration/stream.h"
#include "util/bytes.h"
#include "util/result.h"

namespace ferry::migration {

// Of one packet's data, at both ends.
inline constexpr size_t kMaxStateBytes = size_t{1024} * 1024;
// Bytes of all devices' packets that wait at the destination, less one packet per device.
inline constexpr uint64_t kMaxQueuedStateBytes = uint64_t{64} * 1024 * 1024;

// What a packet holds. All but the first two only after the hello.
enum class StatePacketKind : uint8_t {
    Data,
    Config,       // what the VMM keeps for the device, the last packet
    InitialDone,  // the device's initial data are complete; no data
    Discard,      // what came before is worthless; no data
};

// Source: one device's packets, in the order of send(). Used by one thread at a time: the migration
// thread before the switchover, the device's save thread from then on.
class StateWriter {
 public:
    enum class Via : uint8_t { MainChannel, PageChannels };

    virtual ~StateWriter() = default;
    virtual Via via() const = 0;
    // Room for one packet's data, of the size that was asked for; waits until one is free. To be
    // sent before the next is taken. Fails when the attempt has failed.
    virtual Result<MutBytes> room() = 0;
    // Sends the first `bytes` of room(), as they are. By main channel: only Data and Discard.
    virtual Result<> send(size_t bytes, StatePacketKind kind) = 0;
};

// Destination: one device's packets, in order. Used by the device's load thread.
class StateQueue {
 public:
    static constexpr uint64_t kNoLimit = std::numeric_limits<uint64_t>::max();
    struct Packet {
        uint32_t index = 0;
        StatePacketKind kind = StatePacketKind::Data;
        ConstBytes data;  // until the next call
    };

    virtual ~StateQueue() = default;
    // Load thread of the session: from now on next() may take packets.
    virtual void open() = 0;
    // The device's: waits for the next packet; nothing after the last. Fails when it can't come any
    // more, or when the attempt has failed.
    virtual Result<std::optional<Packet>> next() = 0;

    // The device can't be loaded: the whole load fails. Any thread.
    virtual void fail(Error error) = 0;

    // Load thread of the session, for what comes on the main channel. Reads the data of one packet.
    virtual Result<> read(LoadStream& in, size_t bytes) = 0;
    // One without data.
    virtual Result<> put(StatePacketKind kind) = 0;
    // There are no more.
    virtual void finish() = 0;
};

// What a handler with state of this kind provides besides SaveVMHandlers.
class DeviceStateHandlers {
 public:
    virtual ~DeviceStateHandlers() = default;
    // Source, guest stopped, on a thread of its own: everything that is left goes to `out`. Runs
    // for all devices at once; on the page channels the configuration is its last packet.
    virtual Result<> save_live_complete_precopy_thread(StateWriter& out) = 0;
    // Source, migration thread: what was sent by main channel, as a record of a section that
    // save_live_complete_precopy ends.
    virtual Result<> save_state_block(SaveStream& out, StatePacketKind kind, ConstBytes data) = 0;
};

}  // namespace ferry::migration
