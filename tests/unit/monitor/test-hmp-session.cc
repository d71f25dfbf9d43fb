// SPDX-License-Identifier: BSD-2-Clause
#include <gtest/gtest.h>

#include "monitor/command.h"
#include "monitor/hmp-session.h"

namespace ferry::monitor {
namespace {

class NoMigration final : public HmpHost {
 public:
    void when_migration_ended(std::move_only_function<void()> ended) override { ended(); }
    MigrationGlobals migration_globals() const override { return {}; }
};

// The test is its client, which reads when it wants to.
class ManualTransport final : public MonitorTransport {
 public:
    void start(MonitorUser& user) override { user_ = &user; }
    void send(std::string_view text) override { sent += text; }
    size_t backlog_bytes() const override { return backlog; }
    void set_reading(Reading now) override {
        reading = now;
        ++reading_count;
    }

    void come() { user_->opened(); }
    void leave() { user_->closed(); }
    void type(std::string_view text) { user_->received(bytes_of(text), {}); }
    void drain() {
        backlog = 0;
        user_->drained();
    }

    std::string sent;
    size_t backlog = 0;
    Reading reading = Reading::Off;
    int reading_count = 0;

 private:
    MonitorUser* user_ = nullptr;
};

class HmpSessionTest : public ::testing::Test {
 protected:
    void make(Editing editing) {
        auto made = std::make_unique<ManualTransport>();
        transport = made.get();
        session.emplace(hmp, fd_sets, "hello", std::move(made), editing);
        transport->come();
        transport->sent.clear();
    }

    CommandTable table;
    NoMigration host;
    Hmp hmp{table, host};
    FdSets fd_sets;
    ManualTransport* transport = nullptr;
    std::optional<HmpSession> session;
};

TEST_F(HmpSessionTest, TransportThatEditsHearsNoEchoAndIsAskedOncePerLine) {
    make(Editing::ByTransport);
    transport->type("warp\n");
    EXPECT_EQ(transport->sent, "unknown command: 'warp'\r\n(qemu) ");
    EXPECT_EQ(transport->reading, MonitorTransport::Reading::On);
    EXPECT_EQ(transport->reading_count, 1);
}

TEST_F(HmpSessionTest, NothingIsTakenFromAClientThatDoesNotRead) {
    make(Editing::BySession);
    transport->backlog = 1;
    transport->type("warp\nwarp\n");
    EXPECT_EQ(transport->sent, "");
    EXPECT_EQ(transport->reading, MonitorTransport::Reading::Off);
    transport->drain();
    EXPECT_TRUE(transport->sent.ends_with("unknown command: 'warp'\r\n(qemu) "));
    EXPECT_EQ(transport->reading, MonitorTransport::Reading::On);
}

TEST_F(HmpSessionTest, ManyLinesAtOnceTakeNoStack) {
    make(Editing::BySession);
    constexpr size_t kLines = 200'000;
    transport->type(std::string(kLines, '\n'));
    EXPECT_EQ(transport->sent.size(), kLines * std::string_view("\r\n(qemu) ").size());
}

TEST_F(HmpSessionTest, NextClientBeginsWithAnEmptyLine) {
    make(Editing::BySession);
    transport->type("system_res\x1b");
    transport->leave();
    transport->come();
    transport->sent.clear();
    transport->type("et\n");
    EXPECT_EQ(transport->sent, "e\x1b[K\x1b[Det\x1b[K\r\nunknown command: 'et'\r\n(qemu) ");
}

TEST_F(HmpSessionTest, TabCompletes) {
    make(Editing::BySession);
    transport->type("info stat\t");
    EXPECT_TRUE(transport->sent.ends_with("info status \x1b[K"));
}

}  // namespace
}  // namespace ferry::monitor
