// SPDX-License-Identifier: BSD-2-Clause
// What a QMP client sends, against the real commands except those that open what the input names.
#include <algorithm>

#include "monitor/commands.h"
#include "monitor/qmp-server.h"
#include "tests/fuzz/bytes-channel.h"
#include "tests/unit/monitor/fake-vm.h"

using namespace ferry;

namespace {

// Hands over the input in two pieces.
class InputTransport final : public monitor::MonitorTransport {
 public:
    void start(monitor::MonitorUser& user) override {
        user_ = &user;
        user.opened();
    }
    void send(std::string_view text) override {
        // Replies and events are lines of JSON whatever came in.
        if (!monitor::Json::accept(text)) abort();
    }
    size_t backlog_bytes() const override { return 0; }
    void set_reading(Reading) override {}

    void receive(ConstBytes bytes) { user_->received(bytes, {}); }
    void close() { user_->closed(); }

 private:
    monitor::MonitorUser* user_ = nullptr;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    static util::SystemClock clock;
    test::FakeVm fake(clock, system::RunState::Running);
    fake.vm.loop.run([&] {
        monitor::CommandTable table;
        monitor::add_fd_commands(table);
        monitor::add_info_commands(table, fake);
        monitor::add_setting_commands(table, fake);
        monitor::add_postcopy_commands(table);
        monitor::add_schema_command(table);
        monitor::QmpServer server(fake.vm.loop, table, monitor::version_info());
        auto made = std::make_unique<InputTransport>();
        InputTransport& transport = *made;
        server.add(std::move(made), monitor::Layout::Line);
        const ConstBytes input = test::fuzz_input(data, size);
        constexpr std::string_view kNegotiation = R"({"execute": "qmp_capabilities"})";
        if (size % 2 == 0) transport.receive(bytes_of(kNegotiation));
        transport.receive(input.first(size / 2));
        transport.receive(input.subspan(size / 2));
        transport.close();
    });
    fake.vm.loop.run([] {});
    return 0;
}
