// SPDX-License-Identifier: BSD-2-Clause
// Which packet of device state may come in, and whether one still can: the rules behind StateInbox,
// without threads and memory, so that a test can try them in every order.
// docs/devel/device-state.rst argues why a sender that queues each device's packets in order never
// gets stuck.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "migration/state-packet.h"

namespace ferry::migration {

class StateLedger {
 public:
    // How far a device's packets may be ahead of its loader.
    static constexpr uint32_t kWindow = 256;

    // `packet_bytes`: what one packet takes of `limit`, however long it is.
    StateLedger(size_t lanes, uint64_t limit, uint64_t packet_bytes);

    using Device = size_t;
    // `limit`: of this device's packets.
    enum class Bring : uint8_t { Lanes, MainChannel };  // who brings its packets
    Device add_device(std::string label, uint64_t limit, Bring bring = Bring::Lanes);

    enum class Answer : uint8_t { Admitted, Wait };
    // May this packet's data be read now? Asked again after every change. An Error is the peer's.
    Result<Answer> ask(Device device, StatePlace place);
    void filled(Device device, uint32_t index);  // its data are there

    // The device's loader.
    enum class Next : uint8_t { Ready, Missing, Complete };
    Next next(Device device) const;
    uint32_t next_index(Device device) const { return devices_[device].next; }
    void loading(Device device);  // began with the next one
    void loaded(Device device);   // is done with it
    // Whether its loader takes packets: not before the switchover where pre-copy data go elsewhere.
    void open(Device device) { devices_[device].open = true; }
    void finish(Device device);  // what is filled is all there is
    bool complete(Device device) const { return next(device) == Next::Complete; }
    bool is_open(Device device) const { return devices_[device].open; }

    enum class Lane : uint8_t { Busy, Waiting, AtBarrier, Ended };
    void set_lane(size_t lane, Lane state);
    void lane_waits(size_t lane, Device device, StatePlace place);  // with this packet
    void leave_barrier();                                           // all lanes that stand there

    // An Error when nothing that anybody can do brings a missing packet.
    Result<> check_progress() const;
    // Whether only the peer can bring what a loader waits for: no channel waits for one of ours.
    bool wants_packets() const;
    uint64_t used() const { return used_; }

 private:
    enum class Slot : uint8_t { Empty, Coming, Filled };
    struct OneDevice {
        std::string label;
        uint64_t limit = 0;
        uint64_t used = 0;
        Bring bring = Bring::Lanes;
        bool open = false;
        bool loading = false;
        uint32_t next = 0;  // for the loader
        uint32_t highest = 0;
        bool any = false;             // `highest` means something
        std::optional<uint64_t> end;  // index of the last packet, and 1
        std::vector<Slot> slots;      // a ring; next is at next % kWindow
        std::vector<bool> charged;    // against the limits; the reserved one is not
    };
    static bool is_complete(const OneDevice& device) {
        return device.end && device.next >= *device.end;
    }
    Result<Answer> judge(const OneDevice& device, StatePlace place) const;
    bool fits(const OneDevice& device) const;
    static bool starves(const OneDevice& device);
    static bool starves_for_lanes(const OneDevice& device);
    Error missing(const OneDevice& device, std::string_view why) const;

    const uint64_t limit_;
    const uint64_t packet_bytes_;
    uint64_t used_ = 0;
    std::vector<OneDevice> devices_;
    struct OneLane {
        Lane state = Lane::Busy;
        Device device = 0;  // Waiting: with this packet
        StatePlace place;
    };
    std::vector<OneLane> lanes_;
};

}  // namespace ferry::migration
