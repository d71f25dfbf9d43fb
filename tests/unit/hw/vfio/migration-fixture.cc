// SPDX-License-Identifier: BSD-2-Clause
#include "tests/unit/hw/vfio/migration-fixture.h"

#include <gtest/gtest.h>

#include <future>

#include "util/try.h"
#include "util/wire.h"

namespace ferry::test {

using migration::LoadStream;
using migration::MemorySink;
using migration::MemorySource;
using migration::SaveStream;
using system::Done;
using system::RunState;

Result<> FakeConfig::read_config(LoadStream& in) {
    MIG_TRY(read, in.be32());
    return {};
}

Result<> FakeConfig::apply_config() {
    if (loading) loading();
    value = read;
    return {};
}

VfioVmFixture::VfioVmFixture(RunState state) : runstate(loop, env.env, state) {}

VfioVmFixture::~VfioVmFixture() {
    for (const auto& device : devices_) {
        device->io->release_arcs();
        loop.run([&] { device->migration.reset(); });
    }
}

Result<VfioVmFixture::Device*> VfioVmFixture::plug(Plug wanted) {
    auto device = std::make_unique<Device>();
    device->io = std::make_unique<ScriptedDeviceIo>(wanted.name, wanted.caps, log);
    if (wanted.script) wanted.script(*device->io);
    MIG_TRY(device->worker, util::Worker::create("vfio/" + wanted.name));
    Result<std::unique_ptr<vfio::VfioDeviceMigration>> realized;
    const size_t registered = registry.entries().size();
    loop.run([&] {
        realized = vfio::VfioDeviceMigration::realize(
            vfio::VfioVm{.loop = loop,
                         .env = env.env,
                         .runstate = runstate,
                         .memory = memory,
                         .blockers = blocker_list,
                         .registry = registry,
                         .services = services,
                         .migration_event =
                             [this](const std::string& id, const std::string& qom_path,
                                    vfio::MigState state) {
                                 const std::lock_guard lock(mutex_);
                                 events_.push_back(id + " " + qom_path + " " +
                                                   std::string(to_string(state)));
                             }},
            vfio::VfioIdentity{.id = wanted.name,
                               .path = "0000:00:" + wanted.name,
                               .qom_path = "/machine/peripheral/" + wanted.name,
                               .depth = wanted.depth,
                               .dma_space = wanted.dma_space},
            wanted.properties, *device->io, *device->worker, &device->config);
    });
    MIG_TRY(device->migration, std::move(realized));
    if (registry.entries().size() > registered) {
        device->handlers = registry.entries().back()->handlers;
    }
    devices_.push_back(std::move(device));
    return devices_.back().get();
}

VfioVmFixture::Device& VfioVmFixture::plugged(Plug wanted) {
    auto device = plug(std::move(wanted));
    EXPECT_TRUE(device) << device.error().message();
    return **device;
}

void VfioVmFixture::unplug(Device& device) {
    loop.run([&] { device.migration.reset(); });
    std::erase_if(devices_, [&](const auto& each) { return each.get() == &device; });
}

Result<> VfioVmFixture::on_loop(const std::function<void(Done)>& call) {
    std::promise<Result<>> promise;
    loop.post([&] { call([&promise](Result<> result) { promise.set_value(std::move(result)); }); });
    return promise.get_future().get();
}

Result<> VfioVmFixture::stop(RunState to) {
    return on_loop([&](Done done) { runstate.stop(to, std::move(done)); });
}

Result<> VfioVmFixture::start() {
    return on_loop([&](Done done) { runstate.start(std::move(done)); });
}

Result<> VfioVmFixture::set_state(RunState to) {
    return on_loop([&](Done done) { done(runstate.set_state(to)); });
}

void VfioVmFixture::settle(Device& device) {
    device.worker->run([] {});
}

std::vector<std::string> VfioVmFixture::blockers() {
    std::vector<std::string> reasons;
    loop.run([&] { reasons = blocker_list.reasons(); });
    return reasons;
}

void VfioVmFixture::add_ram(system::Gpa gpa, uint64_t length) {
    const std::string name = "ram" + std::to_string(gpa);
    auto block = system::RamBlock::create_memfd(name, length);
    ASSERT_TRUE(block) << block.error().message();
    auto added = memory.add_block(std::move(*block));
    ASSERT_TRUE(added);
    ASSERT_TRUE(memory.map(**added, gpa, 0, length));
}

std::vector<std::string> VfioVmFixture::events() const {
    const std::lock_guard lock(mutex_);
    return events_;
}

// --- Sender

Result<Bytes> Sender::body(const std::function<Result<>(SaveStream&)>& call) {
    MemorySink sink;
    SaveStream out(sink);
    MIG_CHECK(call(out));
    MIG_CHECK(out.flush());
    return sink.take();
}

Result<> Sender::prepare() {
    Result<> result;
    vm_.loop.run([&] { result = device_.handlers->save_prepare(session); });
    return result;
}

Result<Bytes> Sender::setup() {
    return body([&](SaveStream& out) { return device_.handlers->save_setup(session, out); });
}

Result<Bytes> Sender::iterate_once() {
    return body([&](SaveStream& out) -> Result<> {
        MIG_CHECK(device_.handlers->save_live_iterate(out));
        return {};
    });
}

Result<std::vector<Bytes>> Sender::iterate() {
    std::vector<Bytes> bodies;
    while (device_.handlers->is_active_iterate()) {
        migration::IterateStatus status{};
        MIG_TRY(auto part, body([&](SaveStream& out) -> Result<> {
                    MIG_TRY(status, device_.handlers->save_live_iterate(out));
                    return {};
                }));
        bodies.push_back(std::move(part));
        if (status == migration::IterateStatus::Done) break;
    }
    return bodies;
}

// As a session does: the device's thread, and what it sent by main channel ahead of the end.
Result<Bytes> Sender::complete() {
    auto* const state = device_.handlers->device_state();
    auto& writer = *session.writer;
    writer.packets.clear();
    MIG_CHECK(state->save_live_complete_precopy_thread(writer));
    return body([&](SaveStream& out) -> Result<> {
        for (const auto& packet : writer.packets) {
            if (writer.via() == migration::StateWriter::Via::PageChannels) break;
            MIG_CHECK(state->save_state_block(out, packet.kind, packet.data));
        }
        return device_.handlers->save_live_complete_precopy(out);
    });
}

Result<Bytes> Sender::config() {
    return body([&](SaveStream& out) { return device_.handlers->save_state(out); });
}

void Sender::cleanup(migration::SaveVMHandlers::Outcome outcome) {
    device_.handlers->save_cleanup(outcome);
}

// --- Receiver

Result<> Receiver::setup() {
    MIG_CHECK(device_.handlers->load_setup(session));
    return load(migration::SectionKind::Start, RecordBody().tag(3).tag(1).take());
}

Result<> Receiver::load(migration::SectionKind kind, const Bytes& body) {
    MemorySource source(body);
    LoadStream in(source);
    MIG_CHECK(device_.handlers->load_state(in, kind, 1));
    if (in.position() != body.size()) {
        return make_error(ErrorKind::Protocol, "{} bytes of {} read", in.position(), body.size());
    }
    return {};
}

Result<> Receiver::validate() {
    std::promise<Result<>> promise;
    device_.handlers->load_validate(
        [&promise](Result<> result) { promise.set_value(std::move(result)); });
    return promise.get_future().get();
}

// --- RecordBody

RecordBody& RecordBody::u32(uint32_t value) {
    std::array<std::byte, 4> raw{};
    util::store_be32(raw.data(), value);
    bytes_.insert(bytes_.end(), raw.begin(), raw.end());
    return *this;
}

RecordBody& RecordBody::u64(uint64_t value) {
    std::array<std::byte, 8> raw{};
    util::store_be64(raw.data(), value);
    bytes_.insert(bytes_.end(), raw.begin(), raw.end());
    return *this;
}

RecordBody& RecordBody::tag(uint64_t value) {
    return u64(0xffffffffef100000 | value);
}

RecordBody& RecordBody::data(std::string_view content) {
    tag(4).u64(content.size());
    const Bytes raw = content_of(content);
    bytes_.insert(bytes_.end(), raw.begin(), raw.end());
    return *this;
}

std::vector<std::string> steps_of(const util::Timeline& timeline) {
    std::vector<std::string> steps;
    for (const util::Span& span : timeline.snapshot()) steps.push_back(span.who + " " + span.step);
    return steps;
}

}  // namespace ferry::test
