// SPDX-License-Identifier: BSD-2-Clause
#include <gtest/gtest.h>

#include <array>

#include "system/vmm/board.h"
#include "util/wire.h"

namespace ferry::vmm {
namespace {

constexpr uint64_t kGiB = uint64_t{1} << 30;

Options q35(uint64_t ram) {
    Options options;
    options.ram_bytes = ram;
    return options;
}

uint64_t read_u64(Board& board, uint64_t gpa) {
    std::array<std::byte, 8> bytes{};
    board.memory_read(gpa, bytes);
    return util::load_le64(bytes.data());
}

void write_u64(Board& board, uint64_t gpa, uint64_t value) {
    std::array<std::byte, 8> bytes{};
    util::store_le64(bytes.data(), value);
    board.memory_write(gpa, bytes);
}

TEST(Board, SizeOfBackendMustBeTheOneAskedFor) {
    Options options = q35(1 << 20);
    options.backends.push_back({.id = "m", .size = 2 << 20, .path = {}});
    options.memory_backend = "m";
    EXPECT_EQ(Board::create(options).error().kind(), ErrorKind::InvalidArgument);
}

TEST(Board, WhatNobodyAnswersReadsAllOnes) {
    const auto board = *Board::create(q35(1 << 20));
    EXPECT_EQ(read_u64(*board, 1 << 20), UINT64_MAX);
    write_u64(*board, 1 << 20, 0);
    EXPECT_EQ(read_u64(*board, UINT64_MAX - 7), UINT64_MAX);
    EXPECT_EQ(board->port_read(0x70, 1), 0xffU);
    EXPECT_EQ(board->port_read(0x70, 4), 0xffffffffU);
}

TEST(Board, AccessAcrossTheEndOfRamIsSplit) {
    const auto board = *Board::create(q35(1 << 20));
    write_u64(*board, (1 << 20) - 4, 0);
    EXPECT_EQ(read_u64(*board, (1 << 20) - 4), 0xffffffff'00000000U);
}

TEST(Board, RamBeyondTwoGibLiesAboveFour) {
    const auto board = *Board::create(q35(3 * kGiB));
    write_u64(*board, kHighRamStart, 1234);
    EXPECT_EQ(read_u64(*board, kHighRamStart), 1234U);
    EXPECT_EQ(read_u64(*board, kLowRamEnd), UINT64_MAX);
    EXPECT_EQ(board->memory().find_block("pc.ram")->size(), 3 * kGiB);
}

TEST(Board, BackendGivesTheBlockItsNameAndOthersFollow) {
    Options options;
    options.backends.push_back({.id = "extra", .size = 1 << 20, .path = {}});
    options.backends.push_back({.id = "main", .size = 1 << 20, .path = {}});
    options.memory_backend = "main";
    const auto board = *Board::create(options);
    EXPECT_EQ(board->memory().lookup(0, 1).block->name(), "main");
    EXPECT_EQ(board->memory().lookup(kHighRamStart, 1).block->name(), "extra");
}

TEST(Board, MachineNoneHasOnlyTheRamItIsGiven) {
    Options options;
    options.machine = MachineType::None;
    const auto empty = *Board::create(options);
    EXPECT_TRUE(empty->memory().blocks().empty());
    EXPECT_EQ(empty->bus(), nullptr);
    EXPECT_EQ(empty->port_read(0xcf8, 4), 0xffffffffU);
}

TEST(Board, WritesAreLogged) {
    const auto board = *Board::create(q35(1 << 20));
    write_u64(*board, 5 * system::kPageSize - 4, 1);
    board->msi_write(9 * system::kPageSize, 0x41);
    util::Bitmap dirty((1 << 20) / system::kPageSize);
    board->memory().find_block("pc.ram")->dirty_log().collect_into(dirty);
    EXPECT_EQ(dirty.count(), 3U);
    EXPECT_TRUE(dirty.test(4) && dirty.test(5) && dirty.test(9));
}

TEST(Board, InterruptsWithoutRamAreCounted) {
    const auto board = *Board::create(q35(1 << 20));
    board->msi_write(0xfee00000, 0x41);
    board->msi_write(0xe0000000, 0x41);
    EXPECT_EQ(board->lost_msis(), 2U);
}

TEST(Board, ConfigurationPortsReachTheHostBridge) {
    const auto board = *Board::create(q35(1 << 20));
    EXPECT_EQ(board->port_read(0xcfc, 2), 0xffffU);  // not enabled
    board->port_write(0xcf8, 4, 0x80000000);
    EXPECT_EQ(board->port_read(0xcf8, 4), 0x80000000U);
    EXPECT_EQ(board->port_read(0xcfc, 4), 0x00081b36U);
    EXPECT_EQ(board->port_read(0xcfe, 2), 0x0008U);
    EXPECT_EQ(board->port_read(0xcff, 2), 0xff00U);  // its second byte lies beyond the register
    board->port_write(0xcf8, 1, 0);                  // only whole writes count
    EXPECT_EQ(board->port_read(0xcf8, 4), 0x80000000U);
    board->port_write(0xcf8, 4, 0x80010000);  // bus 1
    EXPECT_EQ(board->port_read(0xcfc, 4), 0xffffffffU);
    board->reset();
    EXPECT_EQ(board->port_read(0xcf8, 4), 0U);
}

}  // namespace
}  // namespace ferry::vmm
