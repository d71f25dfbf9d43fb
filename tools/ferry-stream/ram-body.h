// SPDX-License-Identifier: BSD-2-Clause
// The bodies of section "ram": records of pages, and the list of blocks that they belong to.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "tools/ferry-stream/context.h"

namespace ferry::stream_tool {

struct PageCounts {
    uint64_t normal = 0;
    uint64_t zero = 0;
    uint64_t xbzrle = 0;
    uint64_t bytes = 0;  // of the stream, records included
    void add(const PageCounts& other);
    uint64_t pages() const { return normal + zero + xbzrle; }
    void describe(Node& node) const;
};

class RamBodies {
 public:
    struct Block {
        std::string name;
        uint64_t length = 0;
        PageCounts total = {};
        PageCounts section = {};  // of the body that is read
    };

    explicit RamBodies(Context& context) : context_(context) {}

    // One body up to its footer. An Error: it makes no sense any more; Unsupported where nothing
    // behind it can be found either.
    Result<> read(const BodyOf& section, Node& node);
    // In the order of the list, then those that no list named.
    const std::vector<Block>& blocks() const { return blocks_; }
    bool has_list() const { return list_at_.has_value(); }

 private:
    struct Record {
        uint64_t at = 0;
        uint64_t flags = 0;
        uint64_t value = 0;  // offset or size
    };
    enum class Next : uint8_t { Record, Footer };

    Result<Next> read_record(const BodyOf& section, Node& node);
    Result<> refuse(const Record& record);
    Result<> read_list(const BodyOf& section, const Record& record, Node& node);
    Result<uint64_t> read_list_entry(const Record& record, uint64_t left, Node& list);
    Result<> read_block_page_size(Node& entry);
    Result<Block*> select_block(const Record& record);
    Result<> read_page(const Record& record, Node& node);
    Result<> read_zero(const Record& record, PageCounts& counts);
    Result<> read_xbzrle(const Record& record);
    Block* find(const std::string& name);
    void summarise(Node& node);

    Context& context_;
    std::vector<Block> blocks_;
    std::map<std::string, size_t> index_;
    std::optional<size_t> current_;  // of CONTINUE; lives over the borders of sections
    std::vector<size_t> touched_;    // blocks with pages in the body that is read
    std::optional<uint64_t> list_at_;
    std::vector<std::byte> delta_;
};

}  // namespace ferry::stream_tool
