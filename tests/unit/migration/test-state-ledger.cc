// SPDX-License-Identifier: BSD-2-Clause
// The rules by which packets of device state come in: each by itself, and then a model of a source,
// its page channels and a destination, tried in all orders of small cases and many of large ones.
#include <gtest/gtest.h>

#include <algorithm>
#include <iterator>
#include <memory>
#include <random>
#include <set>

#include "migration/state-ledger.h"

namespace ferry::migration {
namespace {

using Answer = StateLedger::Answer;
using Lane = StateLedger::Lane;

constexpr uint64_t kPacket = 10;

StatePlace data(uint32_t index) {
    return {.index = index, .kind = StatePacketKind::Data};
}
StatePlace config(uint32_t index) {
    return {.index = index, .kind = StatePacketKind::Config};
}

class Ledger : public testing::Test {
 protected:
    std::string ask(StatePlace place) {
        const auto answer = ledger.ask(device, place);
        if (!answer) return answer.error().message();
        return *answer == Answer::Admitted ? "in" : "wait";
    }
    void load() {
        ledger.filled(device, ledger.next_index(device));
        ledger.loading(device);
        ledger.loaded(device);
    }
    StateLedger ledger{2, 3 * kPacket, kPacket};
    StateLedger::Device device = ledger.add_device("d", UINT64_MAX);
};

TEST_F(Ledger, TheNextPacketComesInHoweverFullItIs) {
    for (uint32_t index = 1; index <= 3; ++index) EXPECT_EQ(ask(data(index)), "in");
    EXPECT_EQ(ask(data(4)), "wait");
    EXPECT_EQ(ask(data(0)), "in");
    EXPECT_EQ(ledger.used(), 3 * kPacket);
    load();
    EXPECT_EQ(ledger.used(), 3 * kPacket) << "the reserved place is not one of those";
    load();
    EXPECT_EQ(ask(data(4)), "in");
}

TEST_F(Ledger, AnotherDeviceHasItsOwnReservedPacket) {
    for (uint32_t index = 0; index < 3; ++index) EXPECT_EQ(ask(data(index)), "in");
    device = ledger.add_device("e", UINT64_MAX);
    EXPECT_EQ(ask(data(1)), "wait");
    EXPECT_EQ(ask(data(0)), "in");
}

TEST_F(Ledger, ADevicesOwnLimitNarrowsTheSharedOne) {
    device = ledger.add_device("e", kPacket);
    EXPECT_EQ(ask(data(1)), "in");
    EXPECT_EQ(ask(data(2)), "wait");
    EXPECT_EQ(ask(data(0)), "in");
}

TEST_F(Ledger, WhatIsFarAheadWaitsAndSizesNothing) {
    StateLedger wide(1, UINT64_MAX / 2, kPacket);
    const auto one = wide.add_device("d", UINT64_MAX);
    EXPECT_EQ(*wide.ask(one, data(StateLedger::kWindow - 1)), Answer::Admitted);
    EXPECT_EQ(*wide.ask(one, data(StateLedger::kWindow)), Answer::Wait);
    EXPECT_EQ(*wide.ask(one, data(0xffff'fffe)), Answer::Wait);
}

TEST_F(Ledger, NothingComesTwice) {
    EXPECT_EQ(ask(data(0)), "in");
    EXPECT_EQ(ask(data(1)), "in");
    EXPECT_EQ(ask(data(1)), "device d: packet 1 comes twice");
    load();
    EXPECT_EQ(ask(data(0)), "device d: packet 0 comes twice");
}

TEST_F(Ledger, TheConfigurationIsTheLastAndTheOnlyOne) {
    EXPECT_EQ(ask(config(2)), "in");
    EXPECT_EQ(ask(config(1)), "device d: packet 1 is a second configuration, after packet 2");
    EXPECT_EQ(ask(data(3)), "device d: packet 3 comes after the last, of 3 packets");
    EXPECT_EQ(ask(data(0)), "in");
    EXPECT_EQ(ask(data(1)), "in");
    for (int i = 0; i < 3; ++i) load();
    EXPECT_TRUE(ledger.complete(device));
}

TEST_F(Ledger, AnEarlyConfigurationIsRefused) {
    EXPECT_EQ(ask(data(2)), "in");
    EXPECT_EQ(ask(config(1)),
              "device d: the configuration in packet 1 is not the last, packet 2 came before");
}

TEST_F(Ledger, WithoutAnyPacketItCanBeFinished) {
    ledger.finish(device);
    EXPECT_TRUE(ledger.complete(device));
}

TEST_F(Ledger, ClosedChannelsLeaveAPacketMissing) {
    ledger.open(device);
    EXPECT_EQ(ask(data(1)), "in");
    ledger.set_lane(0, Lane::Ended);
    EXPECT_TRUE(ledger.check_progress());
    ledger.set_lane(1, Lane::Ended);
    const auto stuck = ledger.check_progress();
    ASSERT_FALSE(stuck);
    EXPECT_EQ(stuck.error().kind(), ErrorKind::PeerClosed);
    EXPECT_EQ(stuck.error().message(),
              "device d: packet 0 of its state is missing: the source closed its page channels");
}

TEST_F(Ledger, ClosedChannelsMeanNothingToADeviceOnTheMainOne) {
    StateLedger two(1, kPacket, kPacket);
    const auto by_main = two.add_device("m", UINT64_MAX, StateLedger::Bring::MainChannel);
    two.open(by_main);
    two.set_lane(0, Lane::Ended);
    EXPECT_TRUE(two.check_progress());
    EXPECT_FALSE(two.wants_packets()) << "the main channel's own limit is there";
}

TEST_F(Ledger, AllChannelsWaitingWithLaterPacketsIsAnError) {
    ledger.open(device);
    for (uint32_t index = 1; index <= 3; ++index) {
        EXPECT_EQ(ask(data(index)), "in");
        ledger.filled(device, index);
    }
    ledger.lane_waits(0, device, data(4));
    EXPECT_TRUE(ledger.check_progress()) << "another channel may bring it";
    ledger.lane_waits(1, device, data(5));
    const auto stuck = ledger.check_progress();
    ASSERT_FALSE(stuck);
    EXPECT_NE(stuck.error().message().find("device d: packet 0 of its state is missing"),
              std::string::npos);
}

TEST_F(Ledger, ALoaderThatHasNotBegunIsNotStuck) {
    for (uint32_t index = 1; index <= 3; ++index) EXPECT_EQ(ask(data(index)), "in");
    ledger.lane_waits(0, device, data(4));
    ledger.lane_waits(1, device, data(5));
    EXPECT_TRUE(ledger.check_progress()) << "the main channel goes on";
}

// --- the model

struct Packet {
    enum class Kind : uint8_t { Ram, State, Sync } kind = Kind::Ram;
    size_t device = 0;
    StatePlace place;
};
// What the source's migration thread does, in order. Packets of devices come from other threads,
// which queue them whenever they like from their beginning on.
struct Step {
    enum class Kind : uint8_t { Ram, Barrier, Switchover, LoadReady } kind;
};

struct Case {
    size_t lanes = 2;
    std::vector<std::vector<StatePlace>> devices;  // their packets, in the order of sending
    std::vector<Step> main;
    size_t pipe = 1;     // packets that fit into a channel
    uint64_t limit = 1;  // packets
    bool early = false;  // devices send before the switchover, and their loaders take them
};

class Model {
 public:
    explicit Model(const Case& c)
        : case_(&c),
          ledger_(c.lanes, c.limit * kPacket, kPacket),
          lanes_(c.lanes),
          sent_(c.devices.size()),
          loading_(c.devices.size()) {
        for (size_t i = 0; i < c.devices.size(); ++i) {
            ledger_.add_device("d" + std::to_string(i), UINT64_MAX);
            if (c.early) ledger_.open(i);
        }
    }

    // What may come next, whoever goes first. Who can't go on has said so to the ledger afterwards,
    // as the threads would have.
    std::vector<Model> successors() {
        std::vector<Model> all;
        for (int step = 0; step < step_count(); ++step) {
            Model next(*this);
            if (next.take(step)) {
                all.push_back(std::move(next));
            } else {
                take(step);
            }
        }
        return all;
    }
    // Somebody who reads a channel on which nothing comes: only a time limit knows.
    bool any_lane_idle() const {
        return std::ranges::any_of(lanes_, [this](const OneLane& lane) {
            return lane.pipe.empty() && lane.syncs_read == barriers_passed_;
        });
    }

 private:
    bool take(int step) {
        auto number = static_cast<size_t>(step);
        if (number == 0) return source_main();
        if (number == 1) return destination_main();
        number -= 2;
        if (number < sent_.size()) return source_device(number);
        number -= sent_.size();
        if (number < lanes_.size()) return source_lane(number);
        number -= lanes_.size();
        if (number < lanes_.size()) return destination_lane(number);
        return loader(number - lanes_.size());
    }

 public:
    int step_count() const { return static_cast<int>(2 + 2 * sent_.size() + 2 * lanes_.size()); }
    bool over() const {
        for (size_t i = 0; i < sent_.size(); ++i) {
            if (!ledger_.complete(i)) return false;
        }
        return main_at_ == case_->main.size() && received_ == main_channel_.size();
    }
    Result<> progress() const { return ledger_.check_progress(); }
    const StateLedger& ledger() const { return ledger_; }
    const std::optional<Error>& error() const { return error_; }
    std::string key() const {
        std::string out;
        const auto put = [&out](uint64_t value) { out += static_cast<char>(value + 1); };
        put(main_at_);
        put(received_);
        put(static_cast<uint64_t>(barrier_));
        put(ahead_);
        for (const size_t count : sent_) put(count);
        for (const Packet& packet : queue_) put_packet(out, packet);
        for (const OneLane& lane : lanes_) {
            out += '|';
            put(lane.syncs_written);
            put(lane.syncs_read);
            put(static_cast<uint64_t>(lane.coming));
            for (const Packet& packet : lane.pipe) put_packet(out, packet);
        }
        for (size_t i = 0; i < sent_.size(); ++i) {
            put(ledger_.next_index(i));
            put(static_cast<uint64_t>(loading_[i]));
        }
        return out;
    }

 private:
    struct OneLane {
        std::vector<Packet> pipe;
        size_t syncs_written = 0;
        size_t syncs_read = 0;
        bool coming = false;  // its head was admitted, and is being read
    };
    static void put_packet(std::string& out, const Packet& packet) {
        out += static_cast<char>('a' + static_cast<int>(packet.kind));
        out += static_cast<char>('0' + packet.device);
        out += static_cast<char>('0' + packet.place.index);
    }

    bool source_main() {
        if (barrier_) {
            const bool written = std::ranges::all_of(lanes_, [this](const OneLane& lane) {
                return lane.syncs_written == syncs_wanted_;
            });
            if (!written) return false;
            barrier_ = false;
            main_channel_.push_back(Step{Step::Kind::Barrier});
            ++main_at_;
            return true;
        }
        if (main_at_ == case_->main.size()) return false;
        const Step step = case_->main[main_at_];
        if (step.kind == Step::Kind::Barrier) {
            ++syncs_wanted_;
            ahead_ = queue_.size();
            barrier_ = true;
            return true;
        }
        if (step.kind == Step::Kind::Ram) {
            queue_.push_back({.kind = Packet::Kind::Ram});
        } else {
            main_channel_.push_back(step);
            switched_ = switched_ || step.kind == Step::Kind::Switchover;
        }
        ++main_at_;
        return true;
    }
    bool source_device(size_t device) {
        if (!switched_ && !case_->early) return false;
        const auto& all = case_->devices[device];
        if (sent_[device] == all.size()) return false;
        queue_.push_back({Packet::Kind::State, device, all[sent_[device]++]});
        return true;
    }
    bool source_lane(size_t number) {
        OneLane& lane = lanes_[number];
        if (lane.pipe.size() >= case_->pipe) return false;
        const bool synced = lane.syncs_written == syncs_wanted_;
        if (synced || ahead_ != 0) {
            if (queue_.empty()) return false;
            lane.pipe.push_back(queue_.front());
            queue_.erase(queue_.begin());
            if (ahead_ != 0) --ahead_;
            return true;
        }
        ++lane.syncs_written;
        lane.pipe.push_back({.kind = Packet::Kind::Sync});
        return true;
    }

    bool destination_main() {
        if (received_ == main_channel_.size()) return false;
        const Step step = main_channel_[received_];
        if (step.kind == Step::Kind::Barrier) {
            const bool there = std::ranges::all_of(lanes_, [this](const OneLane& lane) {
                return lane.syncs_read == barriers_passed_ + 1;
            });
            if (!there) return false;
            ++barriers_passed_;
            ledger_.leave_barrier();
        }
        if (step.kind == Step::Kind::Switchover) {
            for (size_t i = 0; i < sent_.size(); ++i) ledger_.open(i);
        }
        ++received_;
        return true;
    }
    bool destination_lane(size_t number) {
        OneLane& lane = lanes_[number];
        if (lane.pipe.empty() || lane.syncs_read > barriers_passed_) return false;
        const Packet head = lane.pipe.front();
        if (head.kind == Packet::Kind::Sync) {
            ++lane.syncs_read;
            lane.pipe.erase(lane.pipe.begin());
            ledger_.set_lane(number, Lane::AtBarrier);
            return true;
        }
        if (head.kind == Packet::Kind::Ram) {
            lane.pipe.erase(lane.pipe.begin());
            return true;
        }
        if (lane.coming) {
            ledger_.filled(head.device, head.place.index);
            lane.coming = false;
            lane.pipe.erase(lane.pipe.begin());
            return true;
        }
        const auto answer = ledger_.ask(head.device, head.place);
        if (!answer) {
            error_ = answer.error();
            return false;
        }
        if (*answer == Answer::Wait) {
            ledger_.lane_waits(number, head.device, head.place);
            return false;
        }
        ledger_.set_lane(number, Lane::Busy);
        lane.coming = true;
        return true;
    }
    bool loader(size_t device) {
        if (loading_[device]) {
            ledger_.loaded(device);
            loading_[device] = false;
            return true;
        }
        if (!ledger_.is_open(device)) return false;
        if (ledger_.next(device) != StateLedger::Next::Ready) return false;
        ledger_.loading(device);
        loading_[device] = true;
        return true;
    }

    const Case* case_;
    StateLedger ledger_;
    std::vector<Packet> queue_;
    std::vector<OneLane> lanes_;
    std::vector<size_t> sent_;
    std::vector<bool> loading_;
    size_t main_at_ = 0;
    size_t syncs_wanted_ = 0;
    size_t ahead_ = 0;  // of the queue: goes ahead of the wanted SYNC
    bool barrier_ = false;
    bool switched_ = false;
    std::vector<Step> main_channel_;
    size_t received_ = 0;
    size_t barriers_passed_ = 0;
    std::optional<Error> error_;
};

std::vector<StatePlace> packets(uint32_t count) {
    std::vector<StatePlace> all;
    for (uint32_t i = 0; i + 1 < count; ++i) all.push_back(data(i));
    all.push_back(config(count - 1));
    return all;
}

const std::vector<Step> kLateScript = {{Step::Kind::Ram},        {Step::Kind::Barrier},
                                       {Step::Kind::Switchover}, {Step::Kind::Ram},
                                       {Step::Kind::Barrier},    {Step::Kind::LoadReady}};

// Depth first over all orders, each state once. Returns how many there are.
size_t try_all_orders(const Case& c) {
    std::set<std::string> seen;
    std::vector<Model> open{Model(c)};
    size_t ends = 0;
    while (!open.empty()) {
        Model model = std::move(open.back());
        open.pop_back();
        if (!seen.insert(model.key()).second) continue;
        auto next = model.successors();
        EXPECT_TRUE(model.progress()) << model.progress().error().message();
        EXPECT_LE(model.ledger().used(), c.limit * kPacket);
        if (next.empty()) {
            EXPECT_TRUE(model.over()) << "nobody can go on";
            ++ends;
        }
        std::ranges::move(next, std::back_inserter(open));
        if (testing::Test::HasFailure()) break;
    }
    EXPECT_GT(ends, 0U);
    return seen.size();
}

TEST(StateModel, OrderedSendersNeverGetStuckInAnyOrder) {
    for (const bool early : {false, true}) {
        for (const uint64_t limit : {0, 1}) {
            if (early && limit == 0) continue;  // more states, nothing new
            Case c;
            c.devices = {packets(2), packets(2)};
            c.main = early ? std::vector<Step>{{Step::Kind::Ram},
                                               {Step::Kind::Barrier},
                                               {Step::Kind::Switchover},
                                               {Step::Kind::Barrier}}
                           : kLateScript;
            c.limit = limit;
            c.early = early;
            const size_t states = try_all_orders(c);
            EXPECT_GT(states, 100U);
            if (testing::Test::HasFailure()) return;
        }
    }
}

// One walk at random; the model's error, or that of the ledger, or nothing.
std::string walk(const Case& c, std::mt19937& random) {
    auto model = std::make_unique<Model>(c);
    for (;;) {
        auto next = model->successors();
        EXPECT_LE(model->ledger().used(), c.limit * kPacket);
        if (next.empty()) break;
        model = std::make_unique<Model>(std::move(next[random() % next.size()]));
    }
    if (model->over()) return "";
    if (model->error()) return model->error()->message();
    const auto progress = model->progress();
    if (!progress) return progress.error().message();
    return model->any_lane_idle() ? "left to the time limit" : "stuck, and nobody says so";
}

Case large_case(std::mt19937& random) {
    Case c;
    c.lanes = 1 + random() % 5;
    c.pipe = 1 + random() % 3;
    c.limit = random() % 4;
    c.early = random() % 2 == 0;
    for (size_t i = 1 + random() % 4; i != 0; --i) {
        c.devices.push_back(packets(1 + static_cast<uint32_t>(random() % 8)));
    }
    c.main = kLateScript;
    for (size_t i = random() % 4; i != 0; --i) {
        c.main.insert(c.main.begin(), {{Step::Kind::Ram}, {Step::Kind::Barrier}});
    }
    return c;
}

TEST(StateModel, OrderedSendersNeverGetStuckInLargeCases) {
    for (unsigned seed = 0; seed < 300; ++seed) {
        std::mt19937 random(seed);
        const Case c = large_case(random);
        ASSERT_EQ(walk(c, random), "") << "seed " << seed;
    }
}

// A sender in any order either comes through or is told which packet of which device is missing.
TEST(StateModel, UnorderedSendersAreNeverStuckInSilence) {
    size_t told = 0;
    for (unsigned seed = 0; seed < 300; ++seed) {
        std::mt19937 random(seed);
        Case c = large_case(random);
        for (auto& device : c.devices) {
            // All but the last, which would be refused.
            std::shuffle(device.begin(), device.end() - 1, random);
        }
        const std::string outcome = walk(c, random);
        if (outcome.empty() || outcome == "left to the time limit") continue;
        ++told;
        ASSERT_NE(outcome.find("of its state is missing: all channels wait"), std::string::npos)
            << "seed " << seed << ": " << outcome;
    }
    EXPECT_GT(told, 10U);
}

}  // namespace
}  // namespace ferry::migration
