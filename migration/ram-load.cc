// SPDX-License-Identifier: BSD-2-Clause
#include "migration/ram-load.h"

#include <algorithm>
#include <string>

#include "migration/ram-records.h"
#include "migration/zero-page.h"
#include "trace-points.h"
#include "util/try.h"

namespace ferry::migration {

using system::kPageSize;

void RamLoader::begin() {
    end();
    for (const auto& block : memory_.blocks()) targets_.push_back({block.get(), false, {}});
}

void RamLoader::end() {
    targets_.clear();
    current_ = nullptr;
    block_list_ = BlockList::Awaited;
}

RamLoader::Target* RamLoader::find(std::string_view name) {
    const auto found = std::ranges::find_if(
        targets_, [name](const Target& target) { return target.block->name() == name; });
    return found == targets_.end() ? nullptr : &*found;
}

Result<> RamLoader::load_body(LoadStream& in, SectionKind kind, uint32_t version) {
    if (version != kRamVersion) {
        return make_error(ErrorKind::Protocol, "version {} is not supported, only {}", version,
                          kRamVersion);
    }
    if (kind == SectionKind::Full) {
        return make_error(ErrorKind::Protocol, "RAM has no such section");
    }
    for (;;) {
        MIG_TRY(const uint64_t word, in.be64());
        const uint64_t flags = word & kRamFlagMask;
        const uint64_t value = word & ~kRamFlagMask;
        if (flags == kRamEos && value == 0) return {};
        if (flags == kRamMemSize) {
            if (kind != SectionKind::Start) {
                return make_error(ErrorKind::Protocol, "block list outside of the first section");
            }
            MIG_CHECK(load_block_list(in, value), "block list");
            continue;
        }
        const uint64_t what = flags & ~kRamContinue;
        if (what != kRamPage && what != kRamZero) {
            return make_error(ErrorKind::Protocol, "record {:#x}: flags {:#x} are not supported",
                              word, flags);
        }
        MIG_CHECK(load_page(in, flags, value), "record {:#x}", word);
    }
}

Result<> RamLoader::load_block_list(LoadStream& in, uint64_t total) {
    if (block_list_ == BlockList::Received) return make_error(ErrorKind::Protocol, "comes twice");
    block_list_ = BlockList::Received;
    uint64_t left = total;
    while (left != 0) {
        MIG_TRY(const std::string name, in.str8());
        MIG_TRY(const uint64_t length, in.be64(), "block '{}'", name);
        Target* const target = find(name);
        if (target == nullptr) {
            return make_error(ErrorKind::Protocol, "block '{}' does not exist here", name);
        }
        if (target->listed) {
            return make_error(ErrorKind::Protocol, "block '{}' is listed twice", name);
        }
        if (length != target->block->size()) {
            return make_error(ErrorKind::Protocol,
                              "block '{}' has {} bytes at the source, {} bytes here", name, length,
                              target->block->size());
        }
        if (length > left) {
            return make_error(ErrorKind::Protocol, "block '{}' exceeds the announced total of {}",
                              name, total);
        }
        target->listed = true;
        if (!target->block->used()) target->written.emplace(target->block->pages());
        // From now on it holds what a peer sent, even if the load fails.
        target->block->mark_used();
        left -= length;
    }
    for (const Target& target : targets_) {
        if (!target.listed) {
            return make_error(ErrorKind::Protocol, "block '{}' of {} bytes exists here only",
                              target.block->name(), target.block->size());
        }
    }
    trace::ram_load_blocks(trace_, targets_.size(), total);
    return {};
}

Result<> RamLoader::select_block(LoadStream& in, uint64_t flags) {
    if ((flags & kRamContinue) != 0) {
        if (current_ == nullptr) return make_error(ErrorKind::Protocol, "no block to continue");
        return {};
    }
    MIG_TRY(const std::string name, in.str8());
    current_ = find(name);
    if (current_ == nullptr || !current_->listed) {
        return make_error(ErrorKind::Protocol, "block '{}' was not announced", name);
    }
    return {};
}

Result<> RamLoader::load_page(LoadStream& in, uint64_t flags, uint64_t offset) {
    MIG_CHECK(select_block(in, flags));
    system::RamBlock& block = *current_->block;
    if (offset >= block.size()) {  // both are multiples of the page size
        return make_error(ErrorKind::Protocol,
                          "offset {:#x} lies outside of block '{}' of {} bytes", offset,
                          block.name(), block.size());
    }
    const MutBytes page = block.host().subspan(offset, kPageSize);
    auto& written = current_->written;
    if ((flags & kRamPage) != 0) {
        if (written) written->set(offset / kPageSize);
        MIG_CHECK(in.bytes(page), "block '{}'", block.name());
        return {};
    }
    MIG_TRY(const uint8_t fill, in.u8());
    if (fill != 0) {
        return make_error(ErrorKind::Protocol, "block '{}': page filled with {:#x}", block.name(),
                          fill);
    }
    // A page that was never touched needs no memory; one that reads as zeros need not be written.
    if (written && !written->test(offset / kPageSize)) return {};
    if (!is_zero_page(page)) std::ranges::fill(page, std::byte{0});
    return {};
}

Result<> RamLoader::validate() const {
    if (block_list_ == BlockList::Awaited && !targets_.empty()) {
        return make_error(ErrorKind::Protocol,
                          "the stream holds no RAM, but block '{}' exists here",
                          targets_.front().block->name());
    }
    return {};
}

}  // namespace ferry::migration
