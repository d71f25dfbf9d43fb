// SPDX-License-Identifier: BSD-2-Clause
// What the fuzzers begin with: streams and records of real migrations.
//
//   fuzz-seeds DIR      writes DIR/TARGET/NAME
#include <filesystem>
#include <fstream>
#include <iostream>
#include <memory>

#include "tests/fuzz/bytes-channel.h"
#include "tests/support/test-vm-device.h"
#include "tests/unit/hw/vfio/migration-fixture.h"
#include "tests/unit/hw/vfio/pci-rig.h"
#include "util/wire.h"

using namespace ferry;
using test::Bytes;

namespace {

std::filesystem::path root;

void write(const std::string& target, const std::string& name, ConstBytes bytes) {
    std::filesystem::create_directories(root / target);
    std::ofstream out(root / target / name, std::ios::binary);
    out.write(reinterpret_cast<const char*>(bytes.data()),
              static_cast<std::streamsize>(bytes.size()));
    std::cout << target << "/" << name << ": " << bytes.size() << " bytes\n";
}

[[noreturn]] void give_up(const std::string& why) {
    std::cerr << "fuzz-seeds: " << why << "\n";
    std::exit(1);
}

// Keeps what is written through it; without an inner channel that is all.
class Recorder final : public migration::MigrationChannel {
 public:
    Recorder(std::unique_ptr<migration::MigrationChannel> inner, Bytes& copy)
        : inner_(std::move(inner)), copy_(copy) {}
    std::string_view name() const override { return "recorder"; }
    Features features() const override { return {.duplex = inner_ != nullptr}; }
    Result<size_t> read_some(MutBytes into) override {
        if (!inner_) return size_t{0};
        return inner_->read_some(into);
    }
    Result<> write_all(std::span<const ConstBytes> parts) override {
        for (const ConstBytes part : parts) {
            copy_.insert(copy_.end(), part.begin(), part.end());
            bytes_written_ += part.size();
        }
        return inner_ ? inner_->write_all(parts) : Result<>();
    }
    Result<> finish_writing() override { return inner_ ? inner_->finish_writing() : Result<>(); }
    void shutdown(Error reason) noexcept override {
        if (inner_) inner_->shutdown(std::move(reason));
    }

 private:
    std::unique_ptr<migration::MigrationChannel> inner_;
    Bytes& copy_;
};

struct Side {
    Side(util::Clock& clock, system::RunState state)
        : vm(clock, state, test::Guest::Idle, "test-machine", test::kFuzzRamBytes),
          device(vm, test::kFuzzSlot, test::fuzz_device()) {}
    ~Side() { test::settle(vm); }
    test::TestVm vm;
    test::TestVmDevice device;
};

std::unique_ptr<Side> source(util::Clock& clock) {
    auto side = std::make_unique<Side>(clock, system::RunState::PreLaunch);
    side->vm.fill_ram(7);
    side->device.change_state(4096);
    if (!side->vm.start()) give_up("the VM does not start");
    return side;
}

void check(Side& side) {
    test::settle(side.vm);
    if (side.vm.status() != migration::MigrationStatus::Completed) give_up(side.vm.error_desc());
}

void streams() {
    util::SystemClock clock;
    Bytes saved, sent, returned;
    {
        const auto src = source(clock);
        if (!src->vm.migrate(std::make_unique<Recorder>(nullptr, saved))) give_up("save");
        check(*src);
    }
    {
        const auto src = source(clock);
        Side dst(clock, system::RunState::InMigrate);
        auto [a, b] = migration::make_memory_channel_pair();
        if (!dst.vm.incoming(std::make_unique<Recorder>(std::move(b), returned))) give_up("load");
        if (!src->vm.migrate(std::make_unique<Recorder>(std::move(a), sent))) give_up("send");
        check(*src);
        check(dst);
    }
    for (const char* target : {"incoming", "stream-reader"}) {
        write(target, "file", saved);
        write(target, "connection", sent);
    }
    write("return-path", "completed", returned);
    util::WireWriter failed;
    failed.be16(2).be16(4).be32(0x4646001f).be16(7).be16(0).be16(0x4602).be16(0);
    failed.be16(0x4603).be16(9).be32(2).be16(3).bytes(bytes_of("why"));
    failed.be16(1).be16(4).be32(1);
    write("return-path", "failed", failed.view());
}

void add_section(util::WireWriter& out, migration::SectionKind kind, const Result<Bytes>& body) {
    if (!body) give_up(body.error().message());
    out.u8(static_cast<uint8_t>(static_cast<int>(kind) - 1));
    out.be16(static_cast<uint16_t>(body->size())).bytes(*body);
}

void device_records(bool with_features) {
    using migration::SectionKind;
    test::VfioVmFixture vm;
    test::VfioVmFixture::Device& device = vm.plugged({});
    test::Sender sender(vm, device);
    sender.session.its_features = {.discard = with_features, .config_size = with_features};
    if (!sender.prepare()) give_up("prepare");
    util::WireWriter out;
    out.u8(with_features ? 3 : 0);
    add_section(out, SectionKind::Start, sender.setup());
    const auto parts = sender.iterate();
    if (!parts) give_up(parts.error().message());
    for (const Bytes& part : *parts) add_section(out, SectionKind::Part, part);
    if (!vm.stop()) give_up("stop");
    add_section(out, SectionKind::End, sender.complete());
    add_section(out, SectionKind::Full, sender.config());
    sender.cleanup(migration::SaveVMHandlers::Outcome::Completed);
    write("vfio-load", with_features ? "features" : "plain", out.view());
}

class PciRig final : public test::PciFunctionTest {
 public:
    void TestBody() override {}
    Bytes save() {
        enable_msix();
        set_vector(1, 0xfee01000, 0x41);
        migration::MemorySink sink;
        migration::SaveStream out(sink);
        function_->save_config(out);
        if (!out.flush()) give_up("flush");
        return sink.take();
    }
};

void requests() {
    constexpr std::string_view kLines =
        R"({"execute": "qmp_capabilities", "arguments": {"enable": ["oob"]}, "id": 1}
{"execute": "query-qmp-schema", "id": {"a": [1, 2.5e3, null, true]}}
{'exec-oob': 'migrate-pause', 'id': 'x\u00e9\n'}
{"execute": "add-fd", "arguments": {"fdset-id": 1, "opaque": "rdonly:/x"}}
{"execute": "remove-fd", "arguments": {"fdset-id": 1}} {"execute": "query-fdsets"}
{"execute": "migrate-set-parameters", "arguments": {"max-bandwidth": 1, "downtime-limit": 300}}
{"execute": "migrate-set-capabilities",
 "arguments": {"capabilities": [{"capability": "return-path", "state": true}]}}
{"execute": "query-migrate-parameters"}
{"execute": "qom-list-types", "arguments": {"implements": "device"}}
{"execute": "getfd", "arguments": {"fdname": "a"}}
{"execute": "closefd", "arguments": {"fdname": "a"}}
)";
    write("qmp", "requests", bytes_of(kLines));
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 2) give_up("usage: fuzz-seeds DIR");
    root = argv[1];
    streams();
    device_records(false);
    device_records(true);
    write("pci-state", "msix", PciRig().save());
    requests();
    return 0;
}
