// SPDX-License-Identifier: BSD-2-Clause
// What the suite of all device interfaces cannot do: a model whose arcs fail, or that is inside
// one.
#include <gtest/gtest.h>

#include <cerrno>
#include <optional>
#include <semaphore>
#include <thread>

#include "hw/vfio/device-io-soft.h"
#include "tests/support/errno-of.h"
#include "tests/support/mig-states.h"
#include "tests/unit/hw/vfio/soft-rig.h"
#include "util/event-fd.h"

namespace ferry::vfio {
namespace {

using namespace test::mig_states;
using AfterFailure = hw::DeviceModel::AfterFailure;
using test::errno_of;
using test::kAll;
using test::TestDeviceDriver;

// A test device whose next arc fails, or is held, as a test says.
class ScriptedModel final : public hw::DeviceModel {
 public:
    explicit ScriptedModel(std::unique_ptr<hw::TestDevice> device) : device_(std::move(device)) {}

    struct Failure {
        MigState from, to;
        AfterFailure after;
    };
    std::optional<Failure> failure;
    struct Gate {
        std::binary_semaphore entered{0};
        std::binary_semaphore leave{0};
    };
    Gate* gate = nullptr;  // arcs say that they began, and wait
    IrqInfo intx{};

    ArcResult enter(MigState from, MigState to) override {
        if (gate != nullptr) {
            gate->entered.release();
            gate->leave.acquire();
        }
        if (failure && failure->from == from && failure->to == to) {
            return {ferry::Error(ErrorKind::Syscall, "scripted", EIO), failure->after};
        }
        return device_->enter(from, to);
    }

    void connect(hw::DmaAccess& dma, hw::IrqSink& irqs) override {
        irqs_ = &irqs;
        device_->connect(dma, irqs);
    }
    void raise(uint32_t index, uint32_t vector) { irqs_->raise(index, vector); }
    DeviceInfo info() const override { return device_->info(); }
    RegionInfo region_info(uint32_t region) const override { return device_->region_info(region); }
    IrqInfo irq_info(uint32_t index) const override {
        return index == pci_irq::kIntx ? intx : device_->irq_info(index);
    }
    Result<> region_read(uint32_t region, uint64_t offset, MutBytes out) override {
        return device_->region_read(region, offset, out);
    }
    Result<> region_write(uint32_t region, uint64_t offset, ConstBytes in) override {
        return device_->region_write(region, offset, in);
    }
    Result<> reset() override { return device_->reset(); }
    MigCaps migration_caps() const override { return device_->migration_caps(); }
    Result<size_t> save_read(MigState state, MutBytes into) override {
        return device_->save_read(state, into);
    }
    PrecopyInfo precopy_info() override { return device_->precopy_info(); }
    Result<size_t> load_write(ConstBytes from) override { return device_->load_write(from); }
    Result<uint64_t> stop_copy_bytes() override { return device_->stop_copy_bytes(); }
    bool dma_logging_supported() const override { return device_->dma_logging_supported(); }
    Result<> dma_logging_start(std::span<const DmaLogRange> ranges, uint64_t page_size) override {
        return device_->dma_logging_start(ranges, page_size);
    }
    Result<> dma_logging_report(DmaLogRange range, uint64_t page_size, util::Bitmap& out) override {
        return device_->dma_logging_report(range, page_size, out);
    }
    Result<> dma_logging_stop() override { return device_->dma_logging_stop(); }

 private:
    std::unique_ptr<hw::TestDevice> device_;
    hw::IrqSink* irqs_ = nullptr;
};

class SoftDeviceIoTest : public testing::Test {
 protected:
    explicit SoftDeviceIoTest(hw::TestDeviceConfig config = {}, IrqInfo intx = {}) {
        auto device = hw::TestDevice::create(std::move(config), env_.env, "dev");
        EXPECT_TRUE(device);
        auto model = std::make_unique<ScriptedModel>(std::move(*device));
        model->intx = intx;
        model_ = model.get();
        io_ = std::make_unique<SoftDeviceIo>(std::move(model), container_, env_.env, "dev");
    }

    test::TestEnv env_;
    SoftContainer container_{"soft"};
    ScriptedModel* model_ = nullptr;  // belongs to io_
    std::unique_ptr<SoftDeviceIo> io_;
};

struct Arc {
    MigState from, to;
};

std::vector<Arc> elementary_arcs() {
    std::vector<Arc> arcs;
    for (uint32_t from = 1; from < kMigStateCount; ++from) {
        for (uint32_t to = 1; to < kMigStateCount; ++to) {
            const Arc arc{static_cast<MigState>(from), static_cast<MigState>(to)};
            const auto path = mig_path(kAll, arc.from, arc.to);
            if (path && path->size() == 1) arcs.push_back(arc);
        }
    }
    return arcs;
}

std::string describe(Arc arc) {
    return std::string(to_string(arc.from)) + " -> " + std::string(to_string(arc.to));
}

TEST_F(SoftDeviceIoTest, FailingArcLeavesTheDeviceWhereItWasWithItsSession) {
    std::byte piece[16]{};
    for (const Arc arc : elementary_arcs()) {
        SCOPED_TRACE(describe(arc));
        model_->failure.reset();
        ASSERT_TRUE(io_->reset());
        auto stream = io_->set_mig_state(arc.from);
        ASSERT_TRUE(stream);
        model_->failure = {arc.from, arc.to, AfterFailure::StaysThere};
        const auto failed = io_->set_mig_state(arc.to);
        EXPECT_EQ(errno_of(failed), EIO);
        EXPECT_NE(failed.error().message().find(describe(arc)), std::string::npos);
        EXPECT_EQ(*io_->mig_state(), arc.from);
        if (session_of(arc.from) == SessionKind::Saving) {
            EXPECT_TRUE((*stream)->read_some(piece));
        }
        if (session_of(arc.from) == SessionKind::Resuming) {
            EXPECT_TRUE((*stream)->write_some(piece));
        }
    }
}

TEST_F(SoftDeviceIoTest, FailingArcThatLosesTheDeviceEndsInErrorUntilReset) {
    std::byte piece[16]{};
    for (const Arc arc : elementary_arcs()) {
        SCOPED_TRACE(describe(arc));
        model_->failure.reset();
        ASSERT_TRUE(io_->reset());
        auto stream = io_->set_mig_state(arc.from);
        ASSERT_TRUE(stream);
        model_->failure = {arc.from, arc.to, AfterFailure::IsLost};
        EXPECT_EQ(errno_of(io_->set_mig_state(arc.to)), EIO);
        EXPECT_EQ(*io_->mig_state(), MigState::Error);
        EXPECT_EQ(errno_of(io_->set_mig_state(Running)), EINVAL);
        EXPECT_EQ(errno_of(io_->set_mig_state(MigState::Error)), EINVAL);
        if (session_of(arc.from) == SessionKind::Saving) {
            EXPECT_EQ(errno_of((*stream)->read_some(piece)), ENODEV);
        }
        ASSERT_TRUE(io_->reset());
        EXPECT_EQ(*io_->mig_state(), Running);
    }
}

TEST_F(SoftDeviceIoTest, FailureMidwayLeavesTheDeviceInTheIntermediateState) {
    model_->failure = {Stop, Resuming, AfterFailure::StaysThere};
    EXPECT_EQ(errno_of(io_->set_mig_state(Resuming)), EIO);
    EXPECT_EQ(*io_->mig_state(), Stop);
}

TEST_F(SoftDeviceIoTest, StreamThatOutlivesTheDeviceSaysThatItsSessionIsOver) {
    auto stream = io_->set_mig_state(StopCopy);
    ASSERT_TRUE(stream);
    io_.reset();
    std::byte piece[16]{};
    EXPECT_EQ(errno_of((*stream)->read_some(piece)), ENODEV);
}

TEST_F(SoftDeviceIoTest, StreamOfAnEarlierSessionDoesNotReadTheLaterOne) {
    auto earlier = io_->set_mig_state(PreCopy);
    ASSERT_TRUE(earlier && io_->set_mig_state(Running));
    auto later = io_->set_mig_state(PreCopy);
    ASSERT_TRUE(later);
    std::byte piece[16]{};
    EXPECT_EQ(errno_of((*earlier)->read_some(piece)), ENODEV);
    EXPECT_EQ(errno_of((*earlier)->precopy_info()), ENODEV);
    EXPECT_EQ((*later)->read_some(piece)->bytes, 16);
}

TEST_F(SoftDeviceIoTest, QueriesRegionsAndTheDmaLogGoOnDuringAnArc) {
    ScriptedModel::Gate gate;
    model_->gate = &gate;
    std::thread worker([&] { EXPECT_TRUE(io_->set_mig_state(PreCopy)); });
    gate.entered.acquire();
    EXPECT_EQ(*io_->mig_state(), Running);
    EXPECT_TRUE(io_->info());
    EXPECT_EQ(TestDeviceDriver(*io_).get(hw::test_device_reg::kId), hw::test_device_reg::kIdValue);
    const DmaLogRange range[] = {{0, 0x1000}};
    util::Bitmap pages(1);
    EXPECT_TRUE(io_->dma_logging_start(range, 0x1000));
    EXPECT_TRUE(io_->dma_logging_report(range[0], 0x1000, pages));
    EXPECT_TRUE(io_->disable_irqs(pci_irq::kMsix));
    gate.leave.release();
    worker.join();
    EXPECT_EQ(*io_->mig_state(), PreCopy);
}

TEST_F(SoftDeviceIoTest, ResetDuringAnArcTakesEffectAfterIt) {
    ScriptedModel::Gate gate;
    model_->gate = &gate;
    std::unique_ptr<MigDataStream> stream;
    std::thread worker([&] { stream = std::move(*io_->set_mig_state(PreCopy)); });
    gate.entered.acquire();
    std::thread guest([&] { EXPECT_TRUE(io_->reset()); });
    gate.leave.release();
    worker.join();
    guest.join();
    std::byte piece[16]{};
    EXPECT_EQ(*io_->mig_state(), Running);
    EXPECT_EQ(errno_of(stream->read_some(piece)), ENODEV);
}

TEST_F(SoftDeviceIoTest, ReadsBesideArcsGetDataOrTheEndOfTheSession) {
    auto stream = io_->set_mig_state(PreCopy);
    ASSERT_TRUE(stream);
    std::thread reader([&] {
        std::vector<std::byte> piece(4096);
        for (;;) {
            const auto read = (*stream)->read_some(piece);
            if (read) continue;
            EXPECT_EQ(read.error().errnum(), ENODEV);
            return;
        }
    });
    EXPECT_TRUE(io_->set_mig_state(PreCopyP2P));
    EXPECT_TRUE(io_->set_mig_state(StopCopy));
    EXPECT_TRUE(io_->set_mig_state(Stop));
    reader.join();
}

class SoftDeviceIoWithIntx : public SoftDeviceIoTest {
 protected:
    SoftDeviceIoWithIntx()
        : SoftDeviceIoTest({}, {.count = 1, .eventfd = true, .maskable = true}) {}
};

TEST_F(SoftDeviceIoWithIntx, MaskedInterruptComesWhenUnmasked) {
    const auto eventfd = util::EventFd::create();
    ASSERT_TRUE(eventfd);
    const BorrowedFd fds[] = {eventfd->fd()};
    ASSERT_TRUE(io_->set_irq_eventfds(pci_irq::kIntx, 0, fds));
    ASSERT_TRUE(io_->set_irq_masked(pci_irq::kIntx, 0, true));
    model_->raise(pci_irq::kIntx, 0);
    EXPECT_EQ(eventfd->consume(), 0);
    ASSERT_TRUE(io_->set_irq_masked(pci_irq::kIntx, 0, false));
    EXPECT_EQ(eventfd->consume(), 1);
    ASSERT_TRUE(io_->set_irq_masked(pci_irq::kIntx, 0, false));
    EXPECT_EQ(eventfd->consume(), 0);
}

TEST_F(SoftDeviceIoWithIntx, MaskOfAnIndexWithoutMasksIsUnsupported) {
    EXPECT_EQ(errno_of(io_->set_irq_masked(pci_irq::kMsix, 0, true)), ENOTTY);
    EXPECT_EQ(errno_of(io_->set_irq_masked(pci_irq::kIntx, 1, true)), EINVAL);
}

class ImmovableSoftDevice : public SoftDeviceIoTest {
 protected:
    ImmovableSoftDevice() : SoftDeviceIoTest(config()) {}
    static hw::TestDeviceConfig config() {
        hw::TestDeviceConfig config;
        config.caps = {};
        config.dirty_tracking = hw::TestDeviceConfig::DirtyTracking::Off;
        return config;
    }
};

TEST_F(ImmovableSoftDevice, SaysThatMigrationIsUnsupported) {
    EXPECT_EQ(errno_of(io_->migration_caps()), ENOTTY);
    EXPECT_EQ(errno_of(io_->mig_state()), ENOTTY);
    EXPECT_EQ(errno_of(io_->set_mig_state(Stop)), ENOTTY);
    EXPECT_EQ(errno_of(io_->stop_copy_bytes()), ENOTTY);
    EXPECT_EQ(io_->migration_caps().error().kind(), ErrorKind::Unsupported);
}

TEST_F(ImmovableSoftDevice, SaysThatDmaLoggingIsUnsupported) {
    const DmaLogRange range[] = {{0, 0x1000}};
    util::Bitmap pages(1);
    EXPECT_EQ(*io_->dma_logging_supported(), false);
    EXPECT_EQ(errno_of(io_->dma_logging_start(range, 0x1000)), ENOTTY);
    EXPECT_EQ(errno_of(io_->dma_logging_report(range[0], 0x1000, pages)), ENOTTY);
    EXPECT_EQ(errno_of(io_->dma_logging_stop()), ENOTTY);
}

TEST_F(ImmovableSoftDevice, StillResets) {
    EXPECT_TRUE(io_->reset());
}

TEST_F(SoftDeviceIoTest, RegionsCannotBeMapped) {
    EXPECT_EQ(io_->region_map(pci_region::kBar0, 0, 0x1000).error().kind(), ErrorKind::Unsupported);
}

TEST_F(SoftDeviceIoTest, EmptyWriteIsRefused) {
    auto stream = io_->set_mig_state(Resuming);
    ASSERT_TRUE(stream);
    EXPECT_FALSE((*stream)->write_some({}));
}

}  // namespace
}  // namespace ferry::vfio
