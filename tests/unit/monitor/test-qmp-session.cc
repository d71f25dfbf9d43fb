// SPDX-License-Identifier: BSD-2-Clause
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <deque>
#include <optional>

#include "monitor/qmp-server.h"
#include "tests/support/fake-clock.h"
#include "tests/support/test-loop.h"
#include "tests/unit/monitor/qmp-client.h"
#include "util/try.h"

namespace ferry::monitor {
namespace {

using test::QmpClient;

Json version() {
    return {{"qemu", {{"major", 1}, {"minor", 2}, {"micro", 3}}}, {"package", ""}};
}

// A server with a few commands: "echo" answers with its argument, "slow" when the test says so,
// "urgent" does not wait for others, "forget" never answers.
class QmpSessionTest : public testing::Test {
 protected:
    QmpSessionTest() {
        commands.add(
            {"echo", {{"value", {}, Presence::Optional}}, [](const Invocation& call, Reply reply) {
                 std::move(reply).ok(call.arguments);
             }});
        commands.add({"slow", {}, [this](const Invocation&, Reply reply) {
                          slow.push_back(std::move(reply));
                      }});
        commands.add({"urgent",
                      {},
                      [this](const Invocation&, Reply reply) {
                          ++urgent;
                          std::move(reply).ok();
                      },
                      Timing::WhenRead});
        commands.add({.name = "rescue",
                      .arguments = {},
                      .handler = [](const Invocation&, Reply reply) { std::move(reply).ok(); },
                      .out_of_band = OutOfBand::Yes});
        commands.add({"forget", {}, [](const Invocation&, Reply) {}});
        commands.add(
            {"getfd", {{"fdname", {JsonType::String}}}, [](const Invocation& call, Reply reply) {
                 std::move(reply).finish(
                     call.fds.getfd(call.arguments["fdname"].get<std::string>()));
             }});
        commands.add({"takefd",
                      {{"fdname", {JsonType::String}}},
                      [this](const Invocation& call, Reply reply) {
                          auto fd = call.fds.take_fd(call.arguments["fdname"].get<std::string>());
                          if (!fd) return std::move(reply).fail(fd.error());
                          taken = std::move(*fd);
                          std::move(reply).ok();
                      }});
        loop.run([&] { server.emplace(loop, commands, version()); });
    }
    ~QmpSessionTest() override {
        loop.run([&] {
            server.reset();
            slow.clear();
        });
    }

    // A connected client that has seen nothing yet.
    QmpClient connect(Layout layout = Layout::Line) {
        auto [ours, theirs] = test::socket_pair();
        loop.run([&, fd = &theirs] {
            server->add(*make_connected_transport(loop, std::move(*fd)), layout);
        });
        return QmpClient(std::move(ours));
    }
    QmpClient negotiated() {
        QmpClient client = connect();
        client.negotiate();
        return client;
    }
    // Answers the oldest "slow" once it has arrived.
    void finish_slow() {
        ASSERT_TRUE(loop.wait_for([&] { return !slow.empty(); }));
        loop.run([&] {
            std::move(slow.front()).ok({{"slow", true}});
            slow.pop_front();
        });
    }

    test::FakeClock clock;
    test::TestLoop loop{clock};
    CommandTable commands;
    std::deque<Reply> slow;
    int urgent = 0;
    UniqueFd taken;
    std::optional<QmpServer> server;
};

TEST_F(QmpSessionTest, GreetingTellsVersionAndCapabilities) {
    QmpClient client = connect();
    EXPECT_EQ(client.line(), R"({"QMP": {"capabilities": ["oob"], "version": {"package": "", )"
                             R"("qemu": {"major": 1, "micro": 3, "minor": 2}}}})");
}

TEST_F(QmpSessionTest, CommandsAreRefusedBeforeNegotiation) {
    QmpClient client = connect();
    client.line();
    EXPECT_EQ(client.call({{"execute", "echo"}}),
              Json::parse(R"({"error": {"class": "CommandNotFound", "desc":
                  "Expecting capabilities negotiation with 'qmp_capabilities'"}})"));
}

TEST_F(QmpSessionTest, SecondNegotiationIsRefused) {
    QmpClient client = negotiated();
    EXPECT_EQ(client.call({{"execute", "qmp_capabilities"}}),
              Json::parse(R"({"error": {"class": "CommandNotFound", "desc":
                  "Capabilities negotiation is already complete, command ignored"}})"));
}

TEST_F(QmpSessionTest, UnknownCapabilityIsRefusedAndNegotiationStaysOpen) {
    QmpClient client = connect();
    client.line();
    const Json unknown = client.call(
        Json::parse(R"({"execute": "qmp_capabilities", "arguments": {"enable": ["warp"]}})"));
    EXPECT_EQ(unknown["error"]["desc"], "Parameter 'null' does not accept value 'warp'");
    EXPECT_TRUE(
        client.call(Json::parse(R"({"execute": "qmp_capabilities", "arguments": {"enable": []}})"))
            .contains("return"));
}

class OutOfBandTest : public QmpSessionTest {
 protected:
    OutOfBandTest() : client(connect()) {
        client.line();
        EXPECT_TRUE(client
                        .call(Json::parse(R"({"execute": "qmp_capabilities",
                                              "arguments": {"enable": ["oob"]}})"))
                        .contains("return"));
    }
    QmpClient client;
};

TEST_F(OutOfBandTest, CommandOvertakesWhatWaits) {
    client.send("{'execute': 'slow', 'id': 1} {'execute': 'echo', 'id': 2}");
    client.send("{'exec-oob': 'rescue', 'id': 3}");
    EXPECT_EQ(client.next(), Json::parse(R"({"return": {}, "id": 3})"));
    finish_slow();
    EXPECT_EQ(client.next()["id"], 1);
    EXPECT_EQ(client.next()["id"], 2);
}

TEST_F(OutOfBandTest, CommandThatCanNotIsRefusedByName) {
    const Json reply = client.call({{"exec-oob", "echo"}, {"id", 4}});
    EXPECT_EQ(reply["error"]["desc"], "The command echo does not support OOB");
    EXPECT_EQ(reply["id"], 4);
    EXPECT_EQ(client.call({{"exec-oob", "nothing"}})["error"]["class"], "CommandNotFound");
    EXPECT_EQ(client.call({{"exec-oob", "rescue"}, {"execute", "echo"}})["error"]["desc"],
              "QMP input member 'execute' clashes with 'exec-oob'");
}

struct EnvelopeCase {
    std::string_view request;
    std::string_view error_class;
    std::string_view desc;
};
class Envelope : public QmpSessionTest, public testing::WithParamInterface<EnvelopeCase> {};
TEST_P(Envelope, IsCheckedWithTheTextsOfQmp) {
    QmpClient client = negotiated();
    client.send(GetParam().request);
    const Json reply = client.next();
    ASSERT_TRUE(reply.contains("error")) << reply;
    EXPECT_EQ(reply["error"]["class"], GetParam().error_class);
    EXPECT_EQ(reply["error"]["desc"], GetParam().desc);
    EXPECT_TRUE(client.call({{"execute", "echo"}}).contains("return"));
}
INSTANTIATE_TEST_SUITE_P(
    Table, Envelope,
    testing::Values(EnvelopeCase{"[1]", "GenericError", "QMP input must be a JSON object"},
                    EnvelopeCase{"null ", "GenericError", "QMP input must be a JSON object"},
                    EnvelopeCase{"{}", "GenericError", "QMP input lacks member 'execute'"},
                    EnvelopeCase{"{'execute': true}", "GenericError",
                                 "QMP input member 'execute' must be a string"},
                    EnvelopeCase{"{'execute': 'echo', 'arguments': []}", "GenericError",
                                 "QMP input member 'arguments' must be an object"},
                    EnvelopeCase{"{'execute': 'echo', 'extra': 1}", "GenericError",
                                 "QMP input member 'extra' is unexpected"},
                    EnvelopeCase{"{'exec-oob': 'echo'}", "GenericError",
                                 "QMP input member 'exec-oob' is unexpected"},
                    EnvelopeCase{"{'execute': 'nothing'}", "CommandNotFound",
                                 "The command nothing has not been found"},
                    EnvelopeCase{"{'execute': 'echo', 'arguments': {'x': 1}}", "GenericError",
                                 "Parameter 'x' is unexpected"},
                    EnvelopeCase{"{'execute': 'echo', 'execute': 'echo'}", "GenericError",
                                 "JSON parse error, duplicate key"},
                    EnvelopeCase{"{\xff", "GenericError", "JSON parse error, stray '\\xff'"},
                    EnvelopeCase{"{'execute': 'forget'}", "GenericError",
                                 "the command was given up without an answer"}));

TEST_F(QmpSessionTest, IdIsEchoedWhateverItIs) {
    QmpClient client = negotiated();
    client.send(R"({"execute": "echo", "id": {"a": [1, null]}} {"execute": "nothing", "id": "x"})");
    EXPECT_EQ(client.next()["id"], Json::parse(R"({"a": [1, null]})"));
    EXPECT_EQ(client.next()["id"], "x");
    EXPECT_FALSE(client.call({{"execute", "echo"}}).contains("id"));
}

TEST_F(QmpSessionTest, IdIsEchoedInEnvelopeErrors) {
    QmpClient client = negotiated();
    EXPECT_EQ(client.call({{"id", 7}})["id"], 7);
}

TEST_F(QmpSessionTest, TwoRequestsInOneSegmentAreAnsweredInOrder) {
    QmpClient client = negotiated();
    client.send(R"({"execute": "echo", "id": 1}{"execute": "echo", "id": 2})");
    EXPECT_EQ(client.next()["id"], 1);
    EXPECT_EQ(client.next()["id"], 2);
}

TEST_F(QmpSessionTest, RequestArrivingByteByByteIsAnswered) {
    QmpClient client = negotiated();
    for (const char c : std::string(R"({'execute': 'echo', 'id': 'it\'s'})")) client.send({&c, 1});
    EXPECT_EQ(client.next()["id"], "it's");
}

TEST_F(QmpSessionTest, LaterRequestWaitsForTheReplyBeforeIt) {
    QmpClient client = negotiated();
    client.send(R"({"execute": "slow", "id": 1}{"execute": "echo", "id": 2})");
    finish_slow();
    EXPECT_EQ(client.next()["id"], 1);
    EXPECT_EQ(client.next()["id"], 2);
}

TEST_F(QmpSessionTest, OtherMonitorIsServedMeanwhile) {
    QmpClient waiting = negotiated();
    QmpClient other = negotiated();
    waiting.send(R"({"execute": "slow", "id": 1})");
    ASSERT_TRUE(loop.wait_for([&] { return !slow.empty(); }));
    EXPECT_EQ(other.call({{"execute", "echo"}, {"id", 2}})["id"], 2);
    finish_slow();
    EXPECT_EQ(waiting.next()["id"], 1);
}

TEST_F(QmpSessionTest, UrgentCommandRunsAtOnceAndIsAnsweredInOrder) {
    QmpClient client = negotiated();
    client.send(R"({"execute": "slow", "id": 1}{"execute": "echo", "id": 2})"
                R"({"execute": "urgent", "id": 3})");
    ASSERT_TRUE(loop.wait_for([&] { return urgent == 1; }));
    finish_slow();
    EXPECT_EQ(client.next()["id"], 1);
    EXPECT_EQ(client.next()["id"], 2);
    EXPECT_EQ(client.next()["id"], 3);
    loop.run([&] { EXPECT_EQ(urgent, 1); });
}

TEST_F(QmpSessionTest, MoreRequestsThanAreReadAheadAreAllAnsweredInOrder) {
    QmpClient client = negotiated();
    constexpr int kCount = 100;
    client.send(R"({"execute": "slow", "id": -1})");
    for (int i = 0; i < kCount; ++i) client.send(Json{{"execute", "echo"}, {"id", i}}.dump());
    finish_slow();
    EXPECT_EQ(client.next()["id"], -1);
    for (int i = 0; i < kCount; ++i) ASSERT_EQ(client.next()["id"], i);
}

TEST_F(QmpSessionTest, AbandonedRequestsAreAnsweredWithTheReasonAndTheirOwnAnswerIsDropped) {
    QmpClient client = negotiated();
    client.send(R"({"execute": "slow", "id": 1}{"execute": "echo", "id": 2})");
    ASSERT_TRUE(loop.wait_for([&] { return !slow.empty(); }));
    loop.run([&] { server->abandon_waiting(make_error(ErrorKind::Cancelled, "over")); });
    EXPECT_EQ(client.next()["error"]["desc"], "over");
    EXPECT_EQ(client.next()["id"], 2);
    finish_slow();
    EXPECT_EQ(client.call({{"execute", "echo"}, {"id", 3}})["id"], 3);
}

TEST_F(QmpSessionTest, AnswerForAClientThatLeftGoesNowhere) {
    QmpClient client = negotiated();
    client.send(R"({"execute": "slow"})");
    ASSERT_TRUE(loop.wait_for([&] { return !slow.empty(); }));
    client.close();
    finish_slow();
    EXPECT_TRUE(negotiated().call({{"execute", "echo"}}).contains("return"));
}

TEST_F(QmpSessionTest, EventsComeOnlyAfterNegotiation) {
    QmpClient client = connect();
    client.line();
    loop.run([&] { server->emit_event("EARLY"); });
    EXPECT_TRUE(client.call({{"execute", "qmp_capabilities"}}).contains("return"));
    loop.run([&] { server->emit_event("LATE", {{"pass", 2}}); });
    const Json event = client.next();
    EXPECT_EQ(event["event"], "LATE");
    EXPECT_EQ(event["data"], (Json{{"pass", 2}}));
    EXPECT_GT(event["timestamp"]["seconds"].get<int64_t>(), 0);
}

TEST_F(QmpSessionTest, EventsFromOtherThreadsReachAllMonitorsInOrder) {
    QmpClient one = negotiated();
    QmpClient two = negotiated();
    server->emit_event("FIRST");
    server->emit_event("SECOND");
    for (QmpClient* client : {&one, &two}) {
        const Json first = client->next();
        EXPECT_EQ(first["event"], "FIRST");
        EXPECT_FALSE(first.contains("data"));
        EXPECT_EQ(client->next()["event"], "SECOND");
    }
}

TEST_F(QmpSessionTest, PrettyMonitorSpreadsAMessageOverLines) {
    QmpClient client = connect(Layout::Pretty);
    EXPECT_TRUE(
        client.until("\r\n}\r\n").starts_with("{\r\n    \"QMP\": {\r\n        \"capabilities\""));
    client.send("{'execute': 'qmp_capabilities'}");
    EXPECT_EQ(client.until("\r\n}\r\n"), "{\r\n    \"return\": {\r\n    }\r\n}\r\n");
}

TEST_F(QmpSessionTest, PassedDescriptorGetsItsNameAndLeavesTheTableWhenTaken) {
    QmpClient client = negotiated();
    auto [file, unused] = test::socket_pair();
    const BorrowedFd passed = file.borrow();
    client.send_with_fds("{'execute': 'getfd', 'arguments': {'fdname': 'mig'}}", {&passed, 1});
    EXPECT_TRUE(client.next().contains("return"));
    EXPECT_TRUE(client.call(Json::parse(R"({"execute": "takefd", "arguments": {"fdname": "mig"}})"))
                    .contains("return"));
    struct stat ours{}, theirs{};
    loop.run([&] { ::fstat(taken.raw(), &theirs); });
    ::fstat(file.raw(), &ours);
    EXPECT_EQ(ours.st_ino, theirs.st_ino);
    EXPECT_EQ(client.call(Json::parse(
                  R"({"execute": "takefd", "arguments": {"fdname": "mig"}})"))["error"]["desc"],
              "File descriptor named 'mig' has not been found");
}

TEST_F(QmpSessionTest, DescriptorSentAheadOfTheCommandBelongsToIt) {
    QmpClient client = negotiated();
    auto [file, unused] = test::socket_pair();
    const BorrowedFd passed = file.borrow();
    client.send_with_fds(" ", {&passed, 1});
    client.send("{'execute': 'getfd', 'arguments': {'fdname': 'mig'}}");
    EXPECT_TRUE(client.next().contains("return"));
}

TEST_F(QmpSessionTest, GetfdWithoutDescriptorOrWithANumberAsNameIsRefused) {
    QmpClient client = negotiated();
    client.send("{'execute': 'getfd', 'arguments': {'fdname': 'mig'}}");
    EXPECT_EQ(client.next()["error"]["desc"], "No file descriptor supplied via SCM_RIGHTS");
    auto [file, unused] = test::socket_pair();
    const BorrowedFd passed = file.borrow();
    client.send_with_fds("{'execute': 'getfd', 'arguments': {'fdname': '7'}}", {&passed, 1});
    EXPECT_EQ(client.next()["error"]["desc"],
              "Parameter 'fdname' expects a name not starting with a digit");
}

}  // namespace
}  // namespace ferry::monitor
