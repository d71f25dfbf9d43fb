// SPDX-License-Identifier: BSD-2-Clause
#include "migration/state-ledger.h"

#include <algorithm>

#include "util/try.h"

namespace ferry::migration {

StateLedger::StateLedger(size_t lanes, uint64_t limit, uint64_t packet_bytes)
    : limit_(limit), packet_bytes_(packet_bytes), lanes_(lanes) {}

StateLedger::Device StateLedger::add_device(std::string label, uint64_t limit, Bring bring) {
    OneDevice device;
    device.bring = bring;
    device.label = std::move(label);
    device.limit = limit;
    device.slots.resize(kWindow, Slot::Empty);
    device.charged.resize(kWindow);
    devices_.push_back(std::move(device));
    return devices_.size() - 1;
}

bool StateLedger::fits(const OneDevice& device) const {
    return used_ + packet_bytes_ <= limit_ && device.used + packet_bytes_ <= device.limit;
}

Result<StateLedger::Answer> StateLedger::judge(const OneDevice& device, StatePlace place) const {
    const uint32_t index = place.index;
    const bool seen = index < device.next || (index - device.next < kWindow &&
                                              device.slots[index % kWindow] != Slot::Empty);
    if (seen) {
        return make_error(ErrorKind::Protocol, "device {}: packet {} comes twice", device.label,
                          index);
    }
    if (device.end && place.kind == StatePacketKind::Config) {
        return make_error(ErrorKind::Protocol,
                          "device {}: packet {} is a second configuration, after packet {}",
                          device.label, index, *device.end - 1);
    }
    if (device.end && index >= *device.end) {
        return make_error(ErrorKind::Protocol,
                          "device {}: packet {} comes after the last, of {} packets", device.label,
                          index, *device.end);
    }
    if (place.kind == StatePacketKind::Config && device.any && index < device.highest) {
        return make_error(ErrorKind::Protocol,
                          "device {}: the configuration in packet {} is not the last, packet {} "
                          "came before",
                          device.label, index, device.highest);
    }
    if (index - device.next >= kWindow) return Answer::Wait;
    // The one that the loader needs next always has a place of its own.
    return fits(device) || index == device.next ? Answer::Admitted : Answer::Wait;
}

Result<StateLedger::Answer> StateLedger::ask(Device number, StatePlace place) {
    OneDevice& device = devices_[number];
    MIG_TRY(const Answer answer, judge(device, place));
    if (answer == Answer::Wait) return answer;
    const uint32_t at = place.index % kWindow;
    device.slots[at] = Slot::Coming;
    device.charged[at] = fits(device);
    if (device.charged[at]) {
        used_ += packet_bytes_;
        device.used += packet_bytes_;
    }
    device.highest = device.any ? std::max(device.highest, place.index) : place.index;
    device.any = true;
    if (place.kind == StatePacketKind::Config) device.end = uint64_t{place.index} + 1;
    return answer;
}

void StateLedger::filled(Device number, uint32_t index) {
    devices_[number].slots[index % kWindow] = Slot::Filled;
}

StateLedger::Next StateLedger::next(Device number) const {
    const OneDevice& device = devices_[number];
    if (is_complete(device)) return Next::Complete;
    return device.slots[device.next % kWindow] == Slot::Filled ? Next::Ready : Next::Missing;
}

void StateLedger::loading(Device number) {
    devices_[number].loading = true;
}

void StateLedger::loaded(Device number) {
    OneDevice& device = devices_[number];
    const uint32_t at = device.next % kWindow;
    if (device.charged[at]) {
        used_ -= packet_bytes_;
        device.used -= packet_bytes_;
    }
    device.charged[at] = false;
    device.slots[at] = Slot::Empty;
    device.loading = false;
    ++device.next;
}

void StateLedger::finish(Device number) {
    OneDevice& device = devices_[number];
    device.end = device.any ? uint64_t{device.highest} + 1 : device.next;
}

void StateLedger::set_lane(size_t lane, Lane state) {
    lanes_[lane].state = state;
}

void StateLedger::lane_waits(size_t lane, Device device, StatePlace place) {
    lanes_[lane] = {.state = Lane::Waiting, .device = device, .place = place};
}

void StateLedger::leave_barrier() {
    for (OneLane& lane : lanes_) {
        if (lane.state == Lane::AtBarrier) lane.state = Lane::Busy;
    }
}

bool StateLedger::starves(const OneDevice& device) {
    if (!device.open || device.loading || is_complete(device)) return false;
    return device.slots[device.next % kWindow] == Slot::Empty;
}

bool StateLedger::starves_for_lanes(const OneDevice& device) {
    return device.bring == Bring::Lanes && starves(device);
}

bool StateLedger::wants_packets() const {
    const bool any_waits = std::ranges::any_of(
        lanes_, [](const OneLane& lane) { return lane.state == Lane::Waiting; });
    return !any_waits && std::ranges::any_of(devices_, starves_for_lanes);
}

Error StateLedger::missing(const OneDevice& device, std::string_view why) const {
    return make_error(ErrorKind::Protocol, "device {}: packet {} of its state is missing: {}",
                      device.label, device.next, why);
}

// A packet that a lane waits with comes in when its loader gets there, or when there is room again.
// Both take a loader that works. And a lane at a barrier goes on when all others have come to it.
Result<> StateLedger::check_progress() const {
    if (lanes_.empty()) return {};
    size_t ended = 0;
    size_t waiting = 0;
    for (const OneLane& lane : lanes_) {
        if (lane.state == Lane::Busy) return {};
        if (lane.state == Lane::Ended) ++ended;
        if (lane.state != Lane::Waiting) continue;
        ++waiting;
        // It goes on as soon as its thread has its turn.
        const auto answer = judge(devices_[lane.device], lane.place);
        if (!answer || *answer == Answer::Admitted) return {};
    }
    if (ended == lanes_.size()) {
        const auto found = std::ranges::find_if(devices_, starves_for_lanes);
        if (found == devices_.end()) return {};
        return Error(ErrorKind::PeerClosed,
                     missing(*found, "the source closed its page channels").message());
    }
    if (waiting == 0) return {};
    for (const OneDevice& device : devices_) {
        if (!is_complete(device) && device.bring == Bring::Lanes && !starves(device)) return {};
    }
    // The one that a channel waits behind.
    const OneDevice* hungry = nullptr;
    for (const OneLane& lane : lanes_) {
        if (lane.state == Lane::Waiting && starves(devices_[lane.device])) {
            hungry = &devices_[lane.device];
        }
    }
    if (hungry == nullptr) return {};
    return missing(*hungry,
                   "all channels wait with later ones. A source must send a device's packets in "
                   "the order of their index");
}

}  // namespace ferry::migration
